"""Random starts: the gripper above the table, things apart from each other on it."""

import numpy as np

from diffusion_policy_envs.gripper.scene import CUBE_HALF, FINGER_TRAVEL, Floats

__all__ = ["apart", "start_state"]

_REACH, _LOW_REACH = 0.12, 0.2  # m: of the gripper
_LOW, _ABOVE, _HIGH = 0.03, 0.12, 0.18  # m: its heights; from _ABOVE on it is above everything
_ASIDE = 0.09  # m: how far from everything it is where it starts lower; there is always room in a corner or beside one
# Some start as if a grasp had missed: low, the fingers at any opening. So demonstrations show a way on from there too.
_ODD = 0.3
_MAX_YAW = 0.35  # rad: how far a cube is turned; see assets/gripper.xml


def apart(rng: np.random.Generator, count: int, reach: float, distance: float) -> Floats:
    """Returns points (count, 2), uniform in [-reach, reach]^2 among those that are `distance` apart, m."""
    while True:
        points = rng.uniform(-reach, reach, (count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + 2 * distance * np.eye(count)
        if gaps.min() >= distance:
            return points


def start_state(rng: np.random.Generator, cubes: Floats, places: Floats) -> Floats:
    """Returns a state at rest, with the gripper at a random place, mostly open, and every cube turned a little.

    Args:
        rng: draws the rest.
        cubes: (C, 2), m, on the table.
        places: (P, 2), m.
    """
    gripper, opening = _gripper(rng, np.concatenate([cubes, places]))
    half_yaws = 0.5 * rng.uniform(-_MAX_YAW, _MAX_YAW, len(cubes))
    zeros = np.zeros(len(cubes))
    quaternions = np.stack([np.cos(half_yaws), zeros, zeros, np.sin(half_yaws)], axis=-1)
    bodies = np.concatenate([cubes, np.full((len(cubes), 1), CUBE_HALF), quaternions], axis=-1)  # (C, 7)
    velocities = np.zeros(5 + 6 * len(cubes))
    return np.concatenate([gripper, [opening * FINGER_TRAVEL] * 2, bodies.ravel(), velocities, places.ravel()])


def _gripper(rng: np.random.Generator, things: Floats) -> tuple[Floats, float]:
    """Returns x, y, z (3,), m, and the opening of a gripper that touches none of the things (N, 2)."""
    odd = rng.random() < _ODD
    height = rng.uniform(_LOW if odd else _ABOVE, _HIGH)
    low = height < _ABOVE
    reach = _LOW_REACH if low else _REACH
    while True:
        x, y = rng.uniform(-reach, reach, 2)
        if not low or np.abs(things - [x, y]).max(axis=1).min() >= _ASIDE:
            return np.array([x, y, height]), float(rng.random()) if odd else 1.0
