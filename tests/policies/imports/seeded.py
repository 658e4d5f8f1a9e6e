"""Weights and observations that both sides can make from one number. NumPy only: LeRobot's interpreter imports it."""

import math
from typing import Any

import numpy as np

CONSTANT = 0.25
"""The second number of observation.state, in the data and at any time."""


def weights(shapes: dict[str, list[int]], seed: int) -> dict[str, Any]:
    """Returns numbers of the size of those of a young network, float32 or int64, in the order of names."""
    rng = np.random.default_rng(seed)
    return {name: _numbers(name, shapes[name], rng) for name in sorted(shapes)}


def _numbers(name: str, shape: list[int], rng: np.random.Generator) -> Any:
    if name.endswith("num_batches_tracked"):
        return np.full(shape, 7, np.int64)
    drawn = 2 * rng.random(shape, np.float32) - 1  # -1..1
    if name.endswith("running_var"):
        return 1 + drawn / 2
    if name.endswith(("bias", "running_mean")):
        return drawn / 10
    if len(shape) == 1:
        return 1 + drawn / 10
    return drawn * np.float32(math.sqrt(3 / math.prod(shape[1:])))


def observations(features: dict[str, Any], rows: int, steps: int, seed: int) -> dict[str, Any]:
    """Returns {key: (steps, rows, *shape)}: bytes of pictures, channels first; numbers in -1..2 of everything else."""
    rng = np.random.default_rng(seed)
    made = {}
    for key, feature in features.items():
        shape = (steps, rows, *feature["shape"])
        if feature["type"] == "VISUAL":
            made[key] = _pictures(shape, rng)
        else:
            made[key] = 3 * rng.random(shape, np.float32) - 1
    made["observation.state"][..., 1] = CONSTANT
    return made


def _pictures(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Returns smooth pictures: of mere noise a network sees the mean."""
    height, width = shape[-2:]
    across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    wave = rng.random((*shape[:-2], 3))[..., None, None] * 9
    value = np.sin(wave[..., 0, :, :] * across) + np.sin(wave[..., 1, :, :] * down + wave[..., 2, :, :])
    return (127.5 + 63 * value).astype(np.uint8)
