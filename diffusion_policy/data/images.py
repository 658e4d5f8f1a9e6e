"""Recorded pictures as uint8 (n, H, W, C), from the forms that data sets keep them in."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ObsField
from diffusion_policy.data.episodes import Ends
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import blocks, obs_source, stored_shape
from diffusion_policy.data.store import fingerprint, storage_errors
from diffusion_policy.errors import DataError

_VERSION = 1  # of the raw file's content


def image_blocks(name: str, field: ObsField, buffer: ReplayBuffer, episodes: Ends) -> Iterator[NDArray[np.uint8]]:
    """Yields a field's pictures in some episodes, (n, *shape) uint8, block after block.

    Args:
        name: the field's name, for the data set and for messages.
        field: its shape and source; stored channels may come first.
        buffer: only the field's key is read.
        episodes: sorted, distinct.

    Raises:
        DataError: missing, of another shape, or values that are no pixels.
    """
    source = obs_source(name, field, buffer)
    what = f"{buffer.location}: obs.{name} ('{source}')"
    convert = _arranged(stored_shape(source, buffer, f"obs.{name}"), field.shape, what)
    for values in blocks(source, buffer, episodes):
        yield as_uint8(convert(values), what)


def as_uint8(values: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """Returns images as uint8; the field's files also store 0-255 as floats.

    Raises:
        DataError: the values are none of 0-255.
    """
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise DataError(f"{what} must hold images 0-255, but got {values.dtype} in [{low:g}, {high:g}]; rescale them")
    if values.dtype.kind == "f" and 0 < high <= 1:
        raise DataError(
            f"{what} must hold images 0-255, but got {values.dtype} in [{low:g}, {high:g}]; if white is 1, write "
            f'source: "KEY*255"'
        )
    images: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
    return images


def _arranged(stored: tuple[int, ...], shape: tuple[int, ...], what: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Returns what brings stored pictures into the field's shape."""
    if stored == shape:
        return lambda values: values
    if stored == (shape[-1], *shape[:-1]):
        return lambda values: np.moveaxis(values, -3, -1)
    raise DataError(
        f"{what} must be images of shape {shape} (height, width, channels), or with the channels first, but it has "
        f"{stored}; correct the shape in the task (the encoder's resize and crop change what the network sees)"
    )


def raw_file(name: str, field: ObsField, buffer: ReplayBuffer, folder: Path, on_steps: Callable[[int], None]) -> Path:
    """Returns the file of a field's pictures as raw uint8, all steps of the data set, decoded once.

    Its name follows from the stored files, so that data that changed get another. It appears when it is complete.

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
    identity = [_VERSION, fingerprint(Path(buffer.location), source.key), str(source), field.shape]
    path = folder / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]}.raw"
    expected = buffer.num_steps * field.size
    if path.is_file() and path.stat().st_size == expected:
        return path
    with storage_errors(str(path)):
        folder.mkdir(parents=True, exist_ok=True)
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
    return path
