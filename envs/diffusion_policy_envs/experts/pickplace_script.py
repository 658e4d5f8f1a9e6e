"""An expert for PickPlace: over the cube, down, close, up, over to the target, down, open, away."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.experts.gripper_hand import Clearances, GripperHand, expert_rng
from diffusion_policy_envs.gripper.scene import GripperScene
from diffusion_policy_envs.pickplace.goal import placed, target_of

__all__ = ["PickPlaceScript"]

_HEIGHTS = Clearances(free=0.078, lift=0.02, carry=0.05)  # m: fingertips reach 15 mm below, a cube is 50 mm high


class PickPlaceScript:
    """Takes the cube to the target: `action = script(obs, info)`, every step.

    Args:
        scene: the simulated table, which it only reads.
        seed: the same seed acts the same.
        control_hz: calls per simulated second.
    """

    def __init__(self, scene: GripperScene, *, seed: int, control_hz: int = 20) -> None:
        self._scene = scene
        self._hand = GripperHand(scene, expert_rng(seed), control_hz, _HEIGHTS)

    def __call__(self, obs: dict[str, NDArray[Any]], info: dict[str, Any]) -> NDArray[np.float32]:
        """Returns the next action (4,)."""
        if placed(self._scene):
            return self._hand.retreat(0)
        return self._hand.take(0, target_of(self._scene))
