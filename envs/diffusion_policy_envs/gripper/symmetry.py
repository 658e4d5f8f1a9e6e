"""The mirror of the gripper's tasks: left is right, so x goes to -x and a cube's yaw to -yaw.

Table, gripper, cameras and light are their own image in the plane x = 0. Letters: N steps, C cubes, P places.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mirror_actions", "mirror_observations"]

Array = NDArray[Any]

_GRIPPER = (-1, 1, 1, 1)  # x, y, z, opening; also of an action
_CUBE = (-1, 1, 1, -1, 1)  # x, y, z, sin 4 yaw, cos 4 yaw
_PLACE = (-1, 1)
_SIGNS = {"gripper": _GRIPPER, "cube": _CUBE, "cubes": _CUBE, "target": _PLACE, "bases": _PLACE}
# Of a state: a mirror keeps the part of a rotation about its own axis and turns the others round.
_FINGERS, _POSE, _TWIST = (1, 1), (-1, 1, 1, 1, 1, -1, -1), (-1, 1, 1, 1, -1, -1)


def mirror_observations(obs: Mapping[str, Array], cubes: int, places: int) -> dict[str, Array]:
    """Returns the mirror image of observations {key: (N, *shape)}, in the dtype of each.

    Args:
        obs: of the gripper's tasks.
        cubes: C, how many there are.
        places: P, how many.
    """
    return {
        key: np.ascontiguousarray(_mirrored(key, values, cubes, places), values.dtype) for key, values in obs.items()
    }


def mirror_actions(action: Array) -> Array:
    """Returns the mirror image of actions (N, 4)."""
    return np.ascontiguousarray(action * np.array(_GRIPPER), action.dtype)


def _mirrored(key: str, values: Array, cubes: int, places: int) -> Array:
    if key == "state":
        return _mirror_state(values, cubes, places)
    if key in _SIGNS:
        return np.asarray(values * np.array(_SIGNS[key]))
    return values[:, :, ::-1]  # a picture: both cameras stand in the plane


def _mirror_state(state: Array, cubes: int, places: int) -> Array:
    slides = (*_GRIPPER[:3], *_FINGERS)
    signs = np.array([*slides, *cubes * _POSE, *slides, *cubes * _TWIST, *places * _PLACE, 1])
    order = np.arange(len(signs))
    for left in (3, 3 + len(slides) + cubes * len(_POSE)):  # positions and velocities of the fingers change places
        order[[left, left + 1]] = left + 1, left
    return np.asarray(state[:, order] * signs)
