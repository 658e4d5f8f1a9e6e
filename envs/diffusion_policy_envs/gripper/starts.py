"""Random starts: the gripper above the table, things apart from each other on it."""

import numpy as np

from diffusion_policy_envs.gripper.scene import CUBE_HALF, FINGER_TRAVEL, Floats

__all__ = ["apart", "start_state"]

_GRIPPER_LOW, _GRIPPER_HIGH = (-0.1, -0.1, 0.12), (0.1, 0.1, 0.18)  # m
_MAX_YAW = 0.35  # rad: how far a cube is turned; see assets/gripper.xml


def apart(rng: np.random.Generator, count: int, reach: float, distance: float) -> Floats:
    """Returns points (count, 2), uniform in [-reach, reach]^2 among those that are `distance` apart, m."""
    while True:
        points = rng.uniform(-reach, reach, (count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + 2 * distance * np.eye(count)
        if gaps.min() >= distance:
            return points


def start_state(rng: np.random.Generator, cubes: Floats, places: Floats) -> Floats:
    """Returns a state at rest, with the gripper open at a random place and every cube turned a little.

    Args:
        rng: draws the rest.
        cubes: (C, 2), m, on the table.
        places: (P, 2), m.
    """
    gripper = rng.uniform(_GRIPPER_LOW, _GRIPPER_HIGH)
    half_yaws = 0.5 * rng.uniform(-_MAX_YAW, _MAX_YAW, len(cubes))
    zeros = np.zeros(len(cubes))
    quaternions = np.stack([np.cos(half_yaws), zeros, zeros, np.sin(half_yaws)], axis=-1)
    bodies = np.concatenate([cubes, np.full((len(cubes), 1), CUBE_HALF), quaternions], axis=-1)  # (C, 7)
    velocities = np.zeros(5 + 6 * len(cubes))
    return np.concatenate([gripper, [FINGER_TRAVEL] * 2, bodies.ravel(), velocities, places.ravel()])
