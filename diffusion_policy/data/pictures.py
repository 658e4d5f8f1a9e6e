"""Demonstrations for people's eyes: plots of the actions, frames of the recorded images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_policy.data.images import as_uint8
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.store import storage_errors
from diffusion_policy.errors import OutputExistsError

_MAX_EPISODES = 50  # drawn as lines: more is a blur
_MAX_DIMENSIONS = 16
_MIN_IMAGE = 8  # pixels; below, an array of three axes is something else
_BLOCK_BYTES = 8 << 20  # images read at once: films read several episodes in step


def image_key(buffer: ReplayBuffer) -> str | None:
    """Returns the key that holds images, (height, width, 3) or (3, height, width); that of most pixels, or None."""
    pixels = {
        key: int(np.prod(buffer.shape(key)))
        for key in buffer.keys()  # noqa: SIM118 - a buffer is not a dict
        if _is_image(buffer.shape(key)) or _is_channels_first(buffer.shape(key))
    }
    return max(pixels, key=lambda key: pixels[key], default=None)


def recorded_images(buffer: ReplayBuffer, key: str, steps: slice) -> Iterator[NDArray[np.uint8]]:
    """Yields the images (H, W, 3) of some steps of the data set; few are in memory at once.

    Raises:
        DataError: no such key or steps, or values that are no pixels 0-255.
    """
    block = max(1, _BLOCK_BYTES // buffer.step_bytes([key]))
    for start in range(steps.start, steps.stop, block):
        values = buffer.read(key, start, min(start + block, steps.stop))
        if values.dtype.kind == "f" and values.max() <= 1:  # for eyes only: white is 1, or all is dark
            values = values * 255
        images = as_uint8(values, f"{buffer.location}: '{key}'")
        yield from (
            images if _is_image(buffer.shape(key)) else np.moveaxis(images, 1, -1)
        )  # (n, 3, H, W) -> (n, H, W, 3)


def _is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] == 3 and min(shape[:2]) >= _MIN_IMAGE


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == 3 and min(shape[1:]) >= _MIN_IMAGE


def plot_actions(buffer: ReplayBuffer, path: Path, *, key: str = "action") -> None:
    """Draws the distribution of each dimension of the actions, their course in time and, if two, their paths.

    Args:
        buffer: at least one episode.
        path: a .png (or .pdf, .svg) that does not exist yet.
        key: what to draw.

    Raises:
        DataError: no such key.
        OutputExistsError: `path` exists.
        StorageError: the file cannot be written.
    """
    if path.exists():
        raise OutputExistsError(f"{path} already exists; choose another file")
    figure = action_figure(buffer, key)
    with storage_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def action_figure(buffer: ReplayBuffer, key: str = "action") -> Figure:
    """Draws what `plot_actions` writes.

    Args:
        buffer: at least one episode.
        key: what to draw.

    Raises:
        DataError: no such key.
    """
    count = min(buffer.num_episodes, _MAX_EPISODES)
    shown = np.unique(np.linspace(0, buffer.num_episodes - 1, count).round().astype(int))
    rows = buffer[key].reshape(buffer.num_steps, -1).astype(np.float64)
    size = min(rows.shape[1], _MAX_DIMENSIONS)
    figure = Figure(figsize=(12 if size == 2 else 8, 1.2 + 1.8 * size), layout="constrained")
    grid = figure.add_gridspec(size, 3 if size == 2 else 2)
    for dimension in range(size):
        histogram = figure.add_subplot(grid[dimension, 0])
        histogram.hist(rows[np.isfinite(rows[:, dimension]), dimension], bins=60, color="tab:blue")
        histogram.set(ylabel="steps", xlabel=f"{key}[{dimension}]")
        course = figure.add_subplot(grid[dimension, 1])
        for i in shown:
            course.plot(rows[buffer.episode_slice(int(i)), dimension], linewidth=0.7, alpha=0.6)
        course.set(xlabel="step", ylabel=f"{key}[{dimension}]")
    if size == 2:
        paths = figure.add_subplot(grid[:, 2], aspect="equal")
        for i in shown:
            paths.plot(*rows[buffer.episode_slice(int(i))].T, linewidth=0.7, alpha=0.6)
        paths.set(xlabel=f"{key}[0]", ylabel=f"{key}[1]")
    figure.suptitle(f"{buffer.num_episodes} episodes, {buffer.num_steps} steps ({len(shown)} episodes as lines)")
    return figure
