"""Checks of what people hand to an environment; each says what was expected, what came and what to do."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_choice", "check_keys", "check_sizes", "check_substeps", "check_vector", "check_size"]


def check_substeps(control_hz: int, physics_hz: int) -> int:
    """Returns the physics steps of one action."""
    if not isinstance(control_hz, (int, np.integer)) or control_hz < 1 or physics_hz % control_hz:
        divisors = [hz for hz in range(1, physics_hz + 1) if physics_hz % hz == 0]
        raise ValueError(f"control_hz must be one of {divisors} (divisors of {physics_hz}), but got {control_hz!r}")
    return physics_hz // int(control_hz)


def check_keys(obs_keys: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Returns the keys; all of them must be known."""
    if isinstance(obs_keys, str) or not obs_keys or not set(obs_keys) <= set(known):
        raise ValueError(f"obs_keys must be a list of some of {list(known)}, but got {obs_keys!r}")
    return tuple(obs_keys)


def check_sizes(image_size: int | Mapping[str, int], pictures: Sequence[str]) -> dict[str, int]:
    """Returns {key: size} of all pictures, from one size or from one for each; 96 px where it is not given."""
    if not isinstance(image_size, Mapping):
        return dict.fromkeys(pictures, check_size("image_size", image_size))
    if unknown := sorted(set(image_size) - set(pictures)):
        raise ValueError(f"image_size must name some of {list(pictures)}, but got {unknown}; leave those out")
    return {key: check_size(f"image_size[{key!r}]", image_size.get(key, 96)) for key in pictures}


def check_size(name: str, size: int) -> int:
    """Returns a picture's size in px."""
    if not isinstance(size, (int, np.integer)) or not 8 <= size <= 2048:
        raise ValueError(f"{name} must be a whole number in [8, 2048] px, but got {size!r}")
    return int(size)


def check_choice(name: str, value: str | None, known: Sequence[str | None]) -> str | None:
    """Returns the value, which must be one of the known ones."""
    if value not in known:
        raise ValueError(f"{name} must be one of {list(known)}, but got {value!r}")
    return value


def check_vector(name: str, value: ArrayLike, size: int, meaning: str) -> NDArray[np.float64]:
    """Returns the value as (size,), float64."""
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be {size} numbers ({meaning}), but got {value!r}") from None
    if vector.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},) ({meaning}), but got {vector.shape}; one vector per call")
    if not np.all(np.isfinite(vector)):
        raise ValueError(f"{name} must be finite ({meaning}), but got {vector}; check what computed it")
    return vector
