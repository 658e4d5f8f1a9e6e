"""Demonstrations in a mirror: a task that looks the same in one learns from each of them twice.

Letters: N steps.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import DataError

Array = NDArray[Any]
Mirror = Callable[[dict[str, Array], Array], tuple[Mapping[str, Array], Array]]
"""Steps, observations {key: (N, *shape)} and actions (N, *shape), to the same steps as the mirror shows them."""


def mirrored(mirror: Mirror, obs: Mapping[str, Array], action: Array) -> tuple[dict[str, Array], Array]:
    """Returns the mirror image of steps, checked.

    Args:
        mirror: may change the arrays that it is given, they are copies.
        obs: {key: (N, *shape)}.
        action: (N, *shape).

    Raises:
        DataError: the image is no pair, lacks a key, has another shape or dtype, or a number that is not finite.
    """
    image_of = mirror({key: values.copy() for key, values in obs.items()}, action.copy())
    if not (isinstance(image_of, tuple) and len(image_of) == 2 and isinstance(image_of[0], Mapping)):
        raise DataError(
            f"mirror(obs, action) must return a pair ({{key: array}}, array), but returned {type(image_of).__name__}; "
            f"correct the environment's mirror, or set data.mirror=false"
        )
    images, targets = image_of
    image = {key: _checked(f"obs.{key}", images.get(key), values) for key, values in obs.items()}
    return image, _checked("action", targets, action)


def _checked(name: str, image: Any, original: Array) -> Array:
    """Returns the image contiguous and in the original's dtype: float64 becomes float32."""
    got = np.asarray(image)
    if image is None or got.shape != original.shape or got.dtype.kind != original.dtype.kind:
        found = "nothing" if image is None else f"{got.dtype} {got.shape}"
        raise DataError(
            f"mirror(obs, action): {name} must stay {original.dtype} {original.shape}, but came back as {found}; "
            f"correct the environment's mirror, or set data.mirror=false"
        )
    if not np.isfinite(got).all():
        raise DataError(f"mirror(obs, action): {name} must be finite, but came back with NaN or infinity; correct it")
    return np.ascontiguousarray(got, original.dtype)


def check_mirror(mirror: Mirror, obs: Mapping[str, Array], action: Array) -> None:
    """Tries a mirror on a few steps: twice in it, everything must be where it was, and once, something elsewhere.

    Numbers may differ by a thousandth of their range, pictures by 1, angles by whole turns.

    Args:
        mirror: to try.
        obs: {key: (N, *shape)}, steps from here and there.
        action: (N, *shape).

    Raises:
        DataError: names the field that does not come back and by how much, or says that nothing changes.
    """
    images, targets = mirrored(mirror, obs, action)
    again, targets_again = mirrored(mirror, images, targets)
    first = {**{f"obs.{key}": values for key, values in obs.items()}, "action": action}
    once = {**{f"obs.{key}": values for key, values in images.items()}, "action": targets}
    twice = {**{f"obs.{key}": values for key, values in again.items()}, "action": targets_again}
    for name, values in first.items():
        apart = _apart(values, twice[name])
        if apart.any():
            raise DataError(
                f"mirror(obs, action) twice must give back what it got, but {name} differs by up to {apart.max():.4g}; "
                f"correct the environment's mirror, or set data.mirror=false"
            )
    if not any(_apart(values, once[name]).any() for name, values in first.items()):
        raise DataError(
            f"mirror(obs, action) must change observations or actions, but {', '.join(first)} came back as they were; "
            f"correct the environment's mirror, or set data.mirror=false"
        )


def _apart(values: Array, others: Array) -> Array:
    """Returns how far numbers (N, *shape) are from others, 0 where that is rounding or, of angles, whole turns."""
    apart = np.abs(values.astype(np.float64) - others.astype(np.float64))
    if values.dtype == np.uint8:
        return np.where(apart > 1, apart, 0.0)
    allowed = 1e-3 * np.ptp(values, axis=0) + 1e-5 * np.abs(values).max()  # a field may hold px beside rad
    turns = np.round(apart / (2 * np.pi))
    same_angle = np.abs(apart - 2 * np.pi * turns) < 1e-3
    return np.where((apart > allowed) & ~((turns > 0) & same_angle), apart, 0.0)
