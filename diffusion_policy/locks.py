"""One writer at a time: a folder that is being written is locked against other writers."""

import contextlib
import logging
import os
import sys
import weakref
from pathlib import Path

from diffusion_policy.errors import OutputExistsError

_log = logging.getLogger(__name__)


class FolderLock(contextlib.AbstractContextManager["FolderLock"]):
    """Holds a folder against every other `FolderLock` on it, here and in other processes, until `release`.

    The operating system keeps the lock, not a file: it ends with the process, however that dies, and leaves nothing.

    Args:
        folder: exists.
        what: what the folder holds, for the message.

    Raises:
        OutputExistsError: somebody else holds it.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._release = lambda: None
        if sys.platform == "win32":  # there, an open file cannot be replaced anyway
            return
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise OutputExistsError(
                f"{what} {folder} is being written by another process, or by a writer that was not closed; wait for "
                f"it or close() it, or choose another folder"
            ) from None
        except OSError as error:  # some network file systems have no locks: working there is worth more
            _log.warning("%s cannot be locked against other writers: %s", folder, error)

    def release(self) -> None:
        """Lets others write; a second call does nothing."""
        self._release()

    def __exit__(self, *_: object) -> None:
        self.release()
