"""Refuses an observation before it is sent: wrong key, shape or dtype."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.errors import ObservationError
from diffusion_policy_client.protocol import described


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
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and the server's rules say what then
            found[key] = array if picture else array.astype(np.float32)
    return found
