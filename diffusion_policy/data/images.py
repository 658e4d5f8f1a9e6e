"""Recorded pictures as uint8 (n, H, W, C), from the forms that data sets keep them in."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ObsField
from diffusion_policy.data.episodes import Ends
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import blocks, obs_source, stored_shape
from diffusion_policy.errors import DataError


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
    brightest = 0.0
    for values in blocks(source, buffer, episodes):
        brightest = max(brightest, float(values.max()))
        yield as_uint8(convert(values), what)
    # of all, since a dark beginning says nothing
    if buffer.dtype(source.key).kind == "f" and source.scale == 1.0 and 0 < brightest <= 1:
        raise DataError(
            f"{what} must hold images 0-255, but got {buffer.dtype(source.key)} up to {brightest:g}; if white is 1, "
            f'set obs.{name}.source: "{source}*255"'
        )


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
    images: NDArray[np.uint8] = np.rint(values).astype(np.uint8)
    return images


def _arranged(stored: tuple[int, ...], shape: tuple[int, ...], what: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Returns what brings stored pictures into the field's shape."""
    if stored == shape:
        return lambda values: values
    if (*stored, 1) == shape:
        return lambda values: values[..., None]
    if stored == (shape[-1], *shape[:-1]):
        return lambda values: np.moveaxis(values, -3, -1)
    raise DataError(
        f"{what} must be images of shape {shape} (height, width, channels), or with the channels first, but it has "
        f"{stored}; correct the shape in the task (the encoder's resize and crop change what the network sees)"
    )
