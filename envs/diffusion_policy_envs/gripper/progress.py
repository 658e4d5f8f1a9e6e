"""How far a cube has come on its way to a place: the shaped part of the tasks' rewards."""

import numpy as np

from diffusion_policy_envs.gripper.scene import CUBE_HALF, Floats, GripperScene

__all__ = ["progress"]

_LIFTED = 0.03  # m: a cube so high above the table is lifted
_FAR = 0.3  # m: nothing is near at this distance


def progress(scene: GripperScene, cube: int, place: Floats, tolerance: float) -> float:
    """Returns how far a cube has come that is not yet let go at its place, in [0, 0.9], from the present state alone.

    Up to 0.2 for the gripper's being near; while both fingers touch the cube 0.4 + 0.2 lifted + 0.3 near its place.

    Args:
        scene: the simulated table.
        cube: which one.
        place: x, y (2,) of where it belongs, m.
        tolerance: over its place it is to be lowered, so that it counts as lifted within this distance, m.
    """
    center = scene.cube_position(cube)
    if not scene.held(cube):
        return 0.2 * _near(float(np.linalg.norm(center - scene.gripper[:3])))
    distance = float(np.linalg.norm(center[:2] - place))
    height = float(center[2]) - CUBE_HALF
    lifted = 1.0 if distance < tolerance else min(max(height / _LIFTED, 0.0), 1.0)
    return 0.4 + 0.2 * lifted + 0.3 * _near(distance)


def _near(distance: float) -> float:
    return 1.0 - min(distance / _FAR, 1.0)
