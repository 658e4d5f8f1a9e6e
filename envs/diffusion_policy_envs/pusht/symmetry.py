"""The one symmetry of Push-T: goal and board are their own image in the goal's axis, the line x + y = 512.

(x, y) goes to (512 - y, 512 - x) and an angle a to pi/2 - a. It is exact but for the walls, whose inner faces, at 7
and 504 px as in the original, are 1 px off. Letters: N steps, K keypoints.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.pusht.geometry import BOARD_SIZE, KEYPOINTS

__all__ = ["mirror_actions", "mirror_observations"]

Array = NDArray[Any]


def _mirror_points(points: Array) -> Array:
    """Returns points (..., 2), px."""
    return BOARD_SIZE - points[..., ::-1]


def _keypoint_weights() -> Array:
    """Returns (K, K): the block's keypoints reflected in its own axis, as means of its keypoints.

    They do not lie symmetrically on the block, but they span its plane: any point of it is a weighted sum of them.
    """
    plane = np.column_stack([KEYPOINTS, np.ones(len(KEYPOINTS))])  # (K, 3)
    reflected = plane * [-1.0, 1.0, 1.0]
    return np.asarray(reflected @ np.linalg.pinv(plane))


_KEYPOINT_WEIGHTS = _keypoint_weights()


def _mirror_keypoints(keypoints: Array) -> Array:
    return _mirror_points(np.einsum("kj,njd->nkd", _KEYPOINT_WEIGHTS, keypoints))


def _mirror_state(state: Array) -> Array:
    agent, block = _mirror_points(state[:, 0:2]), _mirror_points(state[:, 2:4])
    angle = (np.pi / 2 - state[:, 4:5]) % (2 * np.pi)
    return np.concatenate([agent, block, angle], axis=1)


def _mirror_image(image: Array) -> Array:
    return image[:, ::-1, ::-1].swapaxes(1, 2)


def _mirror_tilted(image: Array) -> Array:
    return image[:, :, ::-1]  # its camera stands in the goal's axis


_MIRRORS: dict[str, Callable[[Array], Array]] = {
    "agent_pos": _mirror_points,
    "keypoints": _mirror_keypoints,
    "state": _mirror_state,
    "image": _mirror_image,
    "tilted": _mirror_tilted,
}


def mirror_observations(obs: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the mirror image of observations {key: (N, *shape)}, in the dtype of each."""
    return {key: np.ascontiguousarray(_MIRRORS[key](values), dtype=values.dtype) for key, values in obs.items()}


def mirror_actions(action: Array) -> Array:
    """Returns the mirror image of actions (N, 2), px."""
    return np.ascontiguousarray(_mirror_points(action), dtype=action.dtype)
