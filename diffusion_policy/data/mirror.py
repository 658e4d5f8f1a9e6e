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
        DataError: the image lacks a key, has another shape or dtype, or a number that is not finite.
    """
    images, targets = mirror({key: values.copy() for key, values in obs.items()}, action.copy())
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
