"""The shapes of Push-T: where the block's points lie for a pose, and how much of the goal it covers.

A pose is (x, y, angle): the block's origin, the middle of its bar's outer edge, in pixels of the 512 px board (y points
down on the screen), and its angle in radians. The numbers are those of Chi et al., "Diffusion Policy" (2023), whose
human demonstrations hold these states. Letters: K keypoints, V vertices, ... any leading shape.
"""

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

__all__ = ["AGENT_RADIUS", "BLOCK_AREA", "BOARD_SIZE", "BLOCK_OUTLINE", "CENTER_OF_MASS", "GOAL_POSE", "KEYPOINTS"]
__all__ += ["angle_round_block", "block_points", "block_pose", "coverage", "wrap_angle"]

Floats = NDArray[np.float64]

BOARD_SIZE = 512.0  # px
AGENT_RADIUS = 15.0  # px
GOAL_POSE = np.array([256.0, 256.0, np.pi / 4])

# In the block's own frame, px. Bar 120 x 30 along x, stem 30 x 90 along y.
CENTER_OF_MASS = np.array([0.0, 45.0])
BLOCK_OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], float)
BLOCK_AREA = 6300.0  # px^2
# Medians over the human demonstrations, whose recorded keypoints lie within 0.01 px of them in nine frames of ten.
KEYPOINTS = np.array(
    [
        [9.270, 90.041],
        [-60.983, -1.187],
        [60.913, -1.393],
        [-0.271, 25.544],
        [-14.065, 122.816],
        [39.003, 32.857],
        [-39.966, 32.730],
        [-16.824, 62.863],
        [23.541, -1.700],
    ]
)


def block_points(points: Floats, pose: ArrayLike) -> Floats:
    """Returns points of the block's frame as points of the board.

    Args:
        points: (V, 2), px, in the block's frame.
        pose: (..., 3): x px, y px, angle rad.

    Returns:
        (..., V, 2), px.
    """
    pose = np.asarray(pose, dtype=np.float64)
    cos, sin = np.cos(pose[..., 2, None]), np.sin(pose[..., 2, None])  # (..., 1)
    x = pose[..., 0, None] + cos * points[:, 0] - sin * points[:, 1]
    y = pose[..., 1, None] + sin * points[:, 0] + cos * points[:, 1]
    return np.stack([x, y], axis=-1)


def block_pose(points: Floats, seen: ArrayLike) -> Floats:
    """Returns the pose (3,) at which points of the block lie nearest (least squares) to where they were seen.

    The inverse of `block_points`; in the plane the best rotation has a closed form (Kabsch 1976).

    Args:
        points: (V, 2), px, in the block's frame, V >= 2.
        seen: (V, 2), px, the same points on the board.
    """
    seen = np.asarray(seen, dtype=np.float64)
    (own_x, own_y), (x, y) = (points - points.mean(axis=0)).T, (seen - seen.mean(axis=0)).T
    angle = np.arctan2(np.sum(own_x * y - own_y * x), np.sum(own_x * x + own_y * y))
    origin = seen.mean(axis=0) - block_points(points.mean(axis=0)[None], np.array([0.0, 0.0, angle]))[0]
    return np.array([*origin, angle % (2 * np.pi)])


_GOAL = shapely.Polygon(block_points(BLOCK_OUTLINE, GOAL_POSE))
shapely.prepare(_GOAL)


def coverage(pose: ArrayLike) -> Floats:
    """Returns the share of the goal that the block covers, in [0, 1].

    Args:
        pose: (..., 3): x px, y px, angle rad.

    Returns:
        (...): intersection area / block area.
    """
    blocks = shapely.polygons(block_points(BLOCK_OUTLINE, pose))
    return np.asarray(shapely.area(shapely.intersection(_GOAL, blocks)) / BLOCK_AREA)


def wrap_angle(angle: ArrayLike) -> Floats:
    """Returns the angle in [-pi, pi)."""
    return np.asarray((np.asarray(angle, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi)


def angle_round_block(states: ArrayLike) -> float:
    """Returns the signed angle that the agent travels round the block in an episode, rad.

    It is the change of the direction from the block's centre of mass to the agent, followed through full turns.
    Positive is the sense of the block's own angle, from x to y: clockwise on the screen, where y points down.

    Args:
        states: (N, 5): agent x, y, block x, y in px, angle in rad, of successive steps.
    """
    states = np.asarray(states, dtype=np.float64)
    center = block_points(CENTER_OF_MASS[None], states[:, 2:])[:, 0]  # (N, 2)
    toward = states[:, :2] - center
    turns = wrap_angle(np.diff(np.arctan2(toward[:, 1], toward[:, 0])))
    return float(np.sum(turns))
