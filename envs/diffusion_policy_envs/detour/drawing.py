"""Detour as a flat drawing, for machines without OpenGL: the colours and shapes of the MuJoCo scene, by Pillow."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from diffusion_policy_envs.detour.geometry import (
    AGENT_RADIUS,
    FINISH_Y,
    HALF_WIDTH,
    LENGTH,
    PILLAR_RADIUS,
    PILLARS,
    VIEW,
    Floats,
)

__all__ = ["draw_table", "to_metres", "to_pixels"]

# The same as in assets/detour.xml.
_MARGIN, _FRAME, _TABLE = (247, 247, 247), (204, 204, 204), (255, 255, 255)
_FINISH = (144, 238, 144)
_AGENT_EDGE, _AGENT_FACE = (65, 105, 225), (78, 126, 255)
_PILLAR_EDGE, _PILLAR_FACE = (119, 136, 153), (143, 163, 184)
_WALL, _FINISH_HALF, _RIM = 0.01, 0.01, 0.005  # m

_CORNER = np.array([-VIEW / 2, (LENGTH + VIEW) / 2])  # the outer corner of the first pixel, m


def to_pixels(places: ArrayLike, size: int) -> Floats:
    """Returns where places (..., 2) of the table, m, lie on its picture: (..., 2), x and y in its px."""
    offset = np.asarray(places, dtype=np.float64) - _CORNER
    return np.asarray(offset * [size / VIEW, -size / VIEW])


def to_metres(pixels: ArrayLike, size: int) -> Floats:
    """Returns the places (..., 2), m, that lie there on a picture, (..., 2) px: undoes `to_pixels`."""
    offset = np.asarray(pixels, dtype=np.float64) * [VIEW / size, -VIEW / size]
    return np.asarray(offset + _CORNER)


def draw_table(state: Floats, size: int) -> NDArray[np.uint8]:
    """Returns a picture of the table, the finish line above.

    Args:
        state: (4,), of which the first two, the agent's x and y in m, are seen.
        size: height and width of the picture.

    Returns:
        (size, size, 3), uint8.
    """
    factor = max(2, min(8, 1024 // size))
    picture = Image.new("RGB", (size * factor, size * factor), _MARGIN)
    draw = ImageDraw.Draw(picture)

    def box(low: tuple[float, float], high: tuple[float, float]) -> list[int]:
        (left, bottom), (right, top) = to_pixels([low, high], size * factor)
        # First and last pixels whose centres lie inside: so the picture of the mirror image is the mirror image.
        return [math.ceil(left - 0.5), math.ceil(top - 0.5), math.floor(right - 0.5), math.floor(bottom - 0.5)]

    def rectangle(low: tuple[float, float], high: tuple[float, float], color: tuple[int, int, int]) -> None:
        draw.rectangle(box(low, high), fill=color)

    def disc(center: Floats, radius: float, color: tuple[int, int, int]) -> None:
        x, y = center
        draw.ellipse(box((x - radius, y - radius), (x + radius, y + radius)), fill=color)

    rectangle((-HALF_WIDTH - _WALL, -_WALL), (HALF_WIDTH + _WALL, LENGTH + _WALL), _FRAME)
    rectangle((-HALF_WIDTH, 0.0), (HALF_WIDTH, LENGTH), _TABLE)
    rectangle((-HALF_WIDTH, FINISH_Y - _FINISH_HALF), (HALF_WIDTH, FINISH_Y + _FINISH_HALF), _FINISH)
    disc(state[:2], AGENT_RADIUS, _AGENT_EDGE)
    disc(state[:2], AGENT_RADIUS - _RIM, _AGENT_FACE)
    for pillar in PILLARS:
        disc(pillar, PILLAR_RADIUS, _PILLAR_EDGE)
        disc(pillar, PILLAR_RADIUS - _RIM, _PILLAR_FACE)
    return np.array(picture.reduce(factor))
