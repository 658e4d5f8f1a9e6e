"""The symmetry of Detour: the table is its own image in the middle line, x = 0. N steps."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mirror_actions", "mirror_behavior", "mirror_observations"]

Array = NDArray[Any]


def _mirror_points(points: Array) -> Array:
    return np.asarray(points * [-1.0, 1.0])


def _mirror_state(state: Array) -> Array:
    return np.asarray(state * [-1.0, 1.0, -1.0, 1.0])


def _mirror_image(image: Array) -> Array:
    return image[:, :, ::-1]


_MIRRORS: dict[str, Callable[[Array], Array]] = {
    "agent_pos": _mirror_points,
    "pillar": _mirror_points,
    "state": _mirror_state,
    "image": _mirror_image,
}


def mirror_observations(obs: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the mirror image of observations {key: (N, *shape)}, in the dtype of each."""
    return {key: np.ascontiguousarray(_MIRRORS[key](values), dtype=values.dtype) for key, values in obs.items()}


def mirror_actions(action: Array) -> Array:
    """Returns the mirror image of actions (N, 2), m."""
    return np.ascontiguousarray(_mirror_points(action), dtype=action.dtype)


def mirror_behavior(behavior: str) -> str:
    """Returns the route that the mirror image of a route is: left and right swapped."""
    return behavior.translate(str.maketrans("LR", "RL"))
