"""Pictures as raw files and digests, made once and kept in the user's cache folder.

Names follow from the stored files (their inodes and times of change, which copying renews), so that data that changed
get new ones; what nobody has opened for a month goes when a new one is made. Any may be deleted at any time.
"""

import hashlib
import json
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.config import ObsField
from diffusion_policy.data.images import image_blocks
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import obs_source
from diffusion_policy.data.store import fingerprint
from diffusion_policy.errors import DiffusionPolicyError, StorageError
from diffusion_policy.paths import is_remote

_VERSION = 2  # of what the files hold
_UNUSED_S = 30 * 86400.0
_ABANDONED_S = 3600.0  # a half-written file that nobody has touched for so long was left by a killed process


def raw_file(name: str, field: ObsField, buffer: ReplayBuffer, folder: Path, on_steps: Callable[[int], None]) -> Path:
    """Returns the file of a field's pictures as raw uint8, all steps of the data set, decoded once.

    It appears when it is complete: two processes that make it at once both do the work, and neither is disturbed.

    Args:
        name: the field's name.
        field: its shape and source.
        buffer: the data set, on a disk.
        folder: where such files are kept.
        on_steps: called with the number of steps of each block.

    Raises:
        DataError: see `image_blocks`.
        StorageError: the folder is full or not writable.
    """
    source = obs_source(name, field, buffer)
    path = folder / f"{_identity(buffer, [source.key], str(source), field.shape)}.raw"
    if not _recognised(buffer):  # nobody could tell later whether these are still the pictures
        weakref.finalize(buffer, path.unlink, missing_ok=True)
    if path.is_file() and path.stat().st_size == buffer.num_steps * field.size:
        with suppress(OSError):  # a cache that is read-only serves as well
            os.utime(path)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder.glob(".*"), _ABANDONED_S)
        _remove_old(folder.glob("*.raw"), _UNUSED_S)
        handle, partial = tempfile.mkstemp(prefix=f".{path.stem}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                for images in image_blocks(name, field, buffer, np.arange(buffer.num_episodes)):
                    file.write(np.ascontiguousarray(images).data)
                    on_steps(len(images))
                file.flush()
                os.fsync(file.fileno())
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, DiffusionPolicyError):
            raise
        raise StorageError(
            error.errno,
            f"{path} cannot be written: {error.strerror or error}; it needs "
            f"{buffer.num_steps * field.size / 1e9:.1f} GB: free some space (all files there may "
            f"go), set XDG_CACHE_HOME to a folder on another disk, or raise data.memory_limit",
        ) from error
    return path


def remembered_digest(buffer: ReplayBuffer, keys: Sequence[str], folder: Path) -> str:
    """Returns `buffer.digest(keys)`, from the cache if the stored files are those of an earlier time.

    For data sets of pictures, which take minutes to read. Without a place to remember it is computed.
    """
    if not _recognised(buffer):
        return buffer.digest(keys)
    path = folder / f"{_identity(buffer, sorted(keys))}.digest"
    with suppress(OSError):
        return path.read_text().strip()
    digest = buffer.digest(keys)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".partial").write_text(digest)
        path.with_suffix(".partial").replace(path)
    return digest


def has_files(buffer: ReplayBuffer) -> bool:
    """Returns whether a data set lies in files, here or elsewhere, and not in memory."""
    return is_remote(buffer.location) or Path(buffer.location).exists()


def _recognised(buffer: ReplayBuffer) -> bool:
    """Whether stored data can be told from changed ones without reading them: by files here, elsewhere by digests."""
    return buffer.stored_digests() is not None if is_remote(buffer.location) else has_files(buffer)


def _identity(buffer: ReplayBuffer, keys: Sequence[str], *rest: Any) -> str:
    if is_remote(buffer.location):
        stored = buffer.stored_digests()
        files = [f"{os.getpid()} {id(buffer)}" if stored is None else stored[-1:].tobytes().hex()]
    else:
        files = [fingerprint(Path(buffer.location), key) for key in keys]
    parts = [_VERSION, files, buffer.episode_ends.tolist(), list(keys), *rest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _remove_old(files: Iterable[Path], seconds: float) -> None:
    for file in files:
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > seconds:
                file.unlink()
