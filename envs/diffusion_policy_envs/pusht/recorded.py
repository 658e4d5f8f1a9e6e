"""What a recorded step of Push-T says about the board, in this environment's spelling and in the human data set's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.pusht.geometry import KEYPOINTS, Floats, block_pose

__all__ = ["recorded_state"]

_KEYPOINT_NAMES = ("keypoints", "keypoint")  # ours, and that of the human demonstrations


def recorded_state(obs: Mapping[str, ArrayLike]) -> Floats:
    """Returns the state (5,) of one recorded step: agent_x, agent_y, block_x, block_y in px, angle in rad.

    Args:
        obs: {key: array} of one step, with `state` (5,), or with `keypoints` (in the human demonstrations `keypoint`)
            (9, 2) and `agent_pos` (2,); whatever else it holds is ignored.

    Raises:
        ValueError: it holds neither, or in other shapes, or numbers that are not finite.
    """
    if "state" in obs:
        return _checked(obs, "state", (5,))
    keypoints = next((name for name in _KEYPOINT_NAMES if name in obs), None)
    if keypoints is None or "agent_pos" not in obs:
        names = ", ".join(sorted(obs)) or "none"
        raise ValueError(
            f"a recorded step must hold state, or keypoints and agent_pos, but it has {names}; record one of these"
        )
    pose = block_pose(KEYPOINTS, _checked(obs, keypoints, KEYPOINTS.shape))
    return np.concatenate([_checked(obs, "agent_pos", (2,)), pose])


def _checked(obs: Mapping[str, ArrayLike], name: str, shape: tuple[int, ...]) -> Floats:
    value: NDArray[Any] = np.asarray(obs[name], dtype=np.float64)
    if value.shape != shape or not np.all(np.isfinite(value)):
        raise ValueError(
            f"a recorded {name} must be {shape} finite numbers, but got {value.shape}"
            f"{'' if value.shape != shape else ' with NaN or infinity'}; give one step at a time, in px"
        )
    return value
