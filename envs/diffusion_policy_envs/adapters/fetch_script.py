"""Scripts for the Fetch robot: what to do follows from where things are, not from a clock.

So a policy that sees two observations can learn it, and what was missed or dropped is taken again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PickAndPlaceScript", "Script", "reach_script"]

Floats = NDArray[np.float64]
Script = Callable[[dict[str, Any], dict[str, Any]], NDArray[np.float32]]

_STEP = 0.05  # m, of an action of 1
_GAIN = 1.5  # of the way that is left is asked for: the arm follows late
_BESIDE = 0.02  # m: from above the cube, the fingers go down
_WITHIN = 0.015  # m: between the fingers, which may close
_HELD = 0.03, 0.055  # m: how far apart the fingers are that hold the cube, with edges of 5 cm
_SLIPPED = 0.03  # m: so far from the middle it is still held
_OPEN, _CLOSE = 1.0, -1.0


class PickAndPlaceScript:
    """Over the cube, down, close, to the goal.

    Args:
        seen: returns the fields `gripper`, `object`, `goal`.
        seed: says how high above the cube it comes, and where beside it (mm) it aims.
    """

    def __init__(self, seen: Callable[[], dict[str, Floats]], *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._seen = seen
        self._clearance = rng.uniform(0.06, 0.1)  # m
        self._aim = np.append(rng.uniform(-0.004, 0.004, 2), 0.0)

    def __call__(self, obs: dict[str, Any], info: dict[str, Any]) -> NDArray[np.float32]:
        """Returns the next action (4,)."""
        seen = self._seen()
        tool, apart, cube = seen["gripper"][:3], seen["gripper"][3], seen["object"]
        offset = cube + self._aim - tool
        if _HELD[0] < apart < _HELD[1] and np.linalg.norm(offset) < _SLIPPED:
            return _move(seen["goal"] - cube, _CLOSE)
        if np.linalg.norm(offset) < _WITHIN:
            return _move(np.zeros(3), _CLOSE)
        if np.linalg.norm(offset[:2]) < _BESIDE:
            return _move(offset, _OPEN)
        return _move(offset + np.array([0.0, 0.0, self._clearance]), _OPEN)


def reach_script(seen: Callable[[], dict[str, Floats]]) -> Script:
    """Returns a script that brings the gripper straight to the goal.

    Args:
        seen: returns the fields `gripper`, `goal`.
    """

    def act(obs: dict[str, Any], info: dict[str, Any]) -> NDArray[np.float32]:
        fields = seen()
        return _move(fields["goal"] - fields["gripper"][:3], _CLOSE)

    return act


def _move(way: Floats, fingers: float) -> NDArray[np.float32]:
    """Returns the action that leads along a way (3,), m."""
    return np.append(np.clip(_GAIN * way / _STEP, -1.0, 1.0), fingers).astype(np.float32)
