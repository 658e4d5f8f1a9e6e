"""One writer at a time: a folder that is being written is locked against other writers."""

import contextlib
import logging
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

from diffusion_policy.errors import OutputExistsError

logger = logging.getLogger(__name__)


class FolderLock(contextlib.AbstractContextManager["FolderLock"]):
    """Holds a folder against every other `FolderLock` on it, here and in other processes, until `release`.

    The operating system keeps the lock, not a file: however the process dies, the lock goes, and nothing is left
    behind. A forked child that outlives a killed parent keeps it. Where locks do not exist (Windows, some network
    file systems) there is none; the latter is said.

    Args:
        folder: exists.
        what: what the folder holds, for the message.

    Raises:
        OutputExistsError: somebody else holds it.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._release: Callable[[], object] = lambda: None
        if sys.platform == "win32":
            return
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        self._release = weakref.finalize(self, _let_go, handle, os.getpid())
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(handle).st_ino == folder.stat().st_ino  # else it was replaced meanwhile
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:  # working on a file system without locks is worth more than refusing to
            logger.warning("%s cannot be locked against other writers: %s", folder, error)
            return
        if not held:
            self.release()
            raise OutputExistsError(
                f"{what} {folder} is being written by another process, or by a writer that was not closed; wait for "
                f"it or close() it, or choose another folder"
            )

    def release(self) -> None:
        """Lets others write; a second call does nothing."""
        self._release()

    def __exit__(self, *_: object) -> None:
        self.release()


def _let_go(handle: int, owner: int) -> None:
    """Unlocks for forked children too, but not from one."""
    if sys.platform != "win32" and os.getpid() == owner:
        import fcntl

        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)
