"""Push-T as a flat drawing, for machines without OpenGL: the colours and shapes of the MuJoCo scene, by Pillow."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffusion_policy_envs.pusht.geometry import (
    AGENT_RADIUS,
    BLOCK_OUTLINE,
    BOARD_SIZE,
    GOAL_POSE,
    Floats,
    block_points,
)

__all__ = ["draw_board"]

# The same as in assets/pusht.xml.
_MARGIN, _FRAME, _TABLE = (247, 247, 247), (233, 233, 233), (255, 255, 255)
_GOAL = (144, 238, 144)
_AGENT_EDGE, _AGENT_FACE = (65, 105, 225), (78, 126, 255)
_BLOCK_EDGE, _BLOCK_FACE = (119, 136, 153), (143, 163, 184)

_EDGE = 3.5  # px
# The outline moved inwards by the edge's width: towards -x where the normal points to +x, and so on.
_BLOCK_INNER = BLOCK_OUTLINE + _EDGE * np.array(
    [[1, 1], [-1, 1], [-1, -1], [-1, -1], [-1, -1], [1, -1], [1, -1], [1, -1]]
)


def draw_board(state: Floats, size: int) -> NDArray[np.uint8]:
    """Returns a picture of the board.

    Args:
        state: (5,): agent_x, agent_y, block_x, block_y in px, angle in rad.
        size: height and width of the picture.

    Returns:
        (size, size, 3), uint8.
    """
    factor = max(2, min(8, 1024 // size))
    scale = size * factor / BOARD_SIZE
    picture = Image.new("RGB", (size * factor, size * factor), _MARGIN)
    draw = ImageDraw.Draw(picture)

    def polygon(points: Floats, color: tuple[int, int, int]) -> None:
        # A pixel is drawn when its centre lies inside, and Pillow counts centres as whole numbers.
        draw.polygon([(x, y) for x, y in points * scale - 0.5], fill=color)

    def square(low: float, high: float, color: tuple[int, int, int]) -> None:
        polygon(np.array([[low, low], [high, low], [high, high], [low, high]]), color)

    def disc(radius: float, color: tuple[int, int, int]) -> None:
        low, high = (state[:2] - radius) * scale - 0.5, (state[:2] + radius) * scale - 0.5
        draw.ellipse([low[0], low[1], high[0], high[1]], fill=color)

    square(3.0, 508.0, _FRAME)
    square(7.0, 504.0, _TABLE)
    polygon(block_points(BLOCK_OUTLINE, GOAL_POSE), _GOAL)
    disc(AGENT_RADIUS, _AGENT_EDGE)
    disc(AGENT_RADIUS - 3.0, _AGENT_FACE)
    polygon(block_points(BLOCK_OUTLINE, state[2:]), _BLOCK_EDGE)
    polygon(block_points(_BLOCK_INNER, state[2:]), _BLOCK_FACE)
    return np.array(picture.reduce(factor))
