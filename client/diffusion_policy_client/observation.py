"""Refuses what cannot be sent, before it is: an observation of a wrong key, shape or dtype, a time, a seed."""

import operator
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.errors import MismatchError, ObservationError
from diffusion_policy_client.protocol import LARGEST, described


def checked(obs: object, spec: Mapping[str, Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Returns the fields of an observation that a policy reads, float32 or (pictures) uint8.

    Args:
        obs: {key: (*shape)}.
        spec: {key: {type, shape}}.

    Raises:
        ObservationError: a key is missing, or a field has another shape or dtype.
    """
    if not isinstance(obs, Mapping) or not set(spec) <= set(obs):
        got = ", ".join(map(str, obs)) if isinstance(obs, Mapping) else type(obs).__name__
        raise ObservationError(f"expected an observation with {described(spec)}, but got {got or 'nothing'}")
    found = {}
    for key, field in spec.items():
        array = np.asarray(obs[key])
        picture, shape = field["type"] == "rgb", tuple(field["shape"])
        if array.shape != shape or (array.dtype != np.uint8 if picture else array.dtype.kind not in "fiu"):
            kind = "uint8 pixels 0-255" if picture else "numbers"
            raise ObservationError(f"observation '{key}' must be {shape} {kind}, but got {array.shape} {array.dtype}")
        found[key] = array if picture or array.dtype == np.float32 else _single(array)
    return found


def _single(array: NDArray[Any]) -> NDArray[np.float32]:
    """Returns numbers as float32; what overflows becomes infinite, and the server's rules say what then."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def checked_time(time_s: SupportsFloat) -> float:
    """Returns a time as messages have it.

    Raises:
        ObservationError: it is no number, not finite, or larger than servers take.
    """
    try:
        found = float(time_s)
    except (TypeError, ValueError) as error:
        raise ObservationError(f"a time must be seconds, but got {time_s!r:.60}") from error
    if not abs(found) <= LARGEST:
        raise ObservationError(
            f"a time must be finite seconds, at most {LARGEST:g}, but got {time_s}; are these nanoseconds?"
        )
    return found


def checked_seed(seed: SupportsIndex | None) -> int | None:
    """Returns a seed as messages have it.

    Raises:
        MismatchError: it is no whole number from 0 to 2**63 - 1.
    """
    try:
        found = None if seed is None else operator.index(seed)
    except TypeError as error:
        raise MismatchError(f"seed must be a whole number, but got {seed!r:.60}") from error
    if found is not None and not 0 <= found < 2**63:
        raise MismatchError(f"seed must be a whole number from 0 to 2**63 - 1, but got {seed}")
    return found
