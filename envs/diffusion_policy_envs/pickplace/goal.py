"""What it means that the cube is placed."""

import numpy as np

from diffusion_policy_envs.gripper.scene import CUBE_HALF, Floats, GripperScene

__all__ = ["TOLERANCE", "placed", "target_of"]

TOLERANCE = 0.02  # m, from the target's centre
_SEATED = 0.004  # m: how much higher than on the table a cube may be that lies there


def target_of(scene: GripperScene) -> Floats:
    """Returns x, y, z (3,) of where the cube's centre belongs, m."""
    return np.array([*scene.place(0), CUBE_HALF])


def placed(scene: GripperScene) -> bool:
    """Returns whether the cube rests on its target and nothing of the gripper touches it."""
    gap = scene.cube_position(0) - target_of(scene)
    there = gap[:2] @ gap[:2] < TOLERANCE**2 and abs(gap[2]) < _SEATED
    return bool(there) and scene.rests(0) and not scene.touched(0)
