"""An expert for Stack: one cube onto its block, then the other; chance says which comes first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.experts.gripper_hand import Clearances, GripperHand, expert_rng
from diffusion_policy_envs.gripper.scene import GripperScene
from diffusion_policy_envs.stack.subgoals import COLOURS, place_of, stacked

__all__ = ["StackScript"]

_HEIGHTS = Clearances(free=0.118, lift=0.05, carry=0.07)  # m: over cubes that stand on blocks, 90 mm high


class StackScript:
    """Puts the cubes on their blocks: `action = script(obs, info)`, every step.

    Args:
        scene: the simulated table, which it only reads.
        seed: the same seed acts the same; it says which cube comes first, each equally often.
        control_hz: calls per simulated second.
    """

    def __init__(self, scene: GripperScene, *, seed: int, control_hz: int = 20) -> None:
        self._scene = scene
        rng = expert_rng(seed)
        self._order = [int(cube) for cube in rng.permutation(len(COLOURS))]
        self._cube = self._order[0]
        self._hand = GripperHand(scene, rng, control_hz, _HEIGHTS)

    def __call__(self, obs: dict[str, NDArray[Any]], info: dict[str, Any]) -> NDArray[np.float32]:
        """Returns the next action (4,)."""
        if stacked(self._scene, self._cube):
            missing = [cube for cube in self._order if not stacked(self._scene, cube)]
            if not missing:
                return self._hand.retreat(self._cube)
            self._cube = missing[0]
            self._hand.hesitate()
        return self._hand.take(self._cube, place_of(self._scene, self._cube))
