"""Refuses an observation before it reaches a network: wrong key, shape, dtype or a value that is not a number.

Letters: E envs, B rows of a batch, To obs_horizon.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.chunk import Array


def check_observation(obs: object, obs_spec: ObsSpec) -> tuple[dict[str, Array], bool]:
    """Returns the fields of `obs` with a leading env axis, and whether that axis had to be added.

    Keys that the policy does not read are ignored. Finiteness is left to `check_finite`, since slots that are
    not in use may hold anything.

    Args:
        obs: {key: (*shape)} of one env, or {key: (E, *shape)} of E.
        obs_spec: what the policy reads.

    Returns:
        {key: (E, *shape)}, float32 or (for images) uint8; True when `obs` was of a single env.

    Raises:
        ObservationError: a key is missing, or a field has another shape, dtype or number of envs.
    """
    if not isinstance(obs, Mapping):
        raise ObservationError(f"observation must be a dict with {_listed(obs_spec)}, but got {type(obs).__name__}")
    missing = [key for key in obs_spec if key not in obs]
    if missing:
        got = ", ".join(map(str, obs)) or "nothing"
        raise ObservationError(
            f"observation lacks {', '.join(missing)}: expected {_listed(obs_spec)}, but got {got}; "
            f"rename or add what is missing (keys beyond these are ignored)"
        )
    arrays = {key: _array(key, field, obs[key]) for key, field in obs_spec.items()}
    batched = {key: arrays[key].ndim > len(field.shape) for key, field in obs_spec.items()}
    if len(set(batched.values())) > 1:
        raise ObservationError(
            "either all fields or none must have a leading env axis, but "
            + ", ".join(f"{key} has {'one' if has else 'none'}" for key, has in batched.items())
        )
    single = not any(batched.values())
    if single:
        return {key: array[None] for key, array in arrays.items()}, True
    counts = {key: len(array) for key, array in arrays.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise ObservationError(f"the leading axis must be the same number of envs (>= 1) in every field, got {counts}")
    return arrays, False


def check_finite(arrays: Mapping[str, Array], rows: Array) -> None:
    """Raises unless every number of the given envs is finite.

    Args:
        arrays: {key: (E, *shape)}.
        rows: (E,) bool, the envs that matter.

    Raises:
        ObservationError: names the field and the env.
    """
    for key, array in arrays.items():
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1) & rows
        if bad.any():
            raise ObservationError(
                f"observation '{key}' must be finite numbers, but env {int(np.flatnonzero(bad)[0])} has NaN or "
                f"infinity (in float32); check the sensor, or hold its last good value"
            )


def check_windows(windows: Mapping[str, Any], obs_spec: ObsSpec, obs_horizon: int) -> int:
    """Returns B, the rows of observation windows, NumPy or torch.

    Args:
        windows: {key: (B, To, *shape)}.
        obs_spec: what the policy reads.
        obs_horizon: To.

    Raises:
        ObservationError: a key is missing, or a field has another shape, dtype or number of rows.
    """
    missing = [key for key in obs_spec if key not in windows]
    if missing:
        raise ObservationError(
            f"expected observations {', '.join(obs_spec)}, but got {', '.join(windows) or 'none'}; "
            f"add {', '.join(missing)}"
        )
    for key, field in obs_spec.items():
        expected, got = (obs_horizon, *field.shape), tuple(windows[key].shape)
        if got[1:] != expected:
            raise ObservationError(
                f"observation '{key}' must be (B, {', '.join(map(str, expected))}) = (batch, obs_horizon, "
                f"*shape), but got {got}"
            )
        if field.is_picture and not str(windows[key].dtype).endswith("uint8"):
            raise ObservationError(f"observation '{key}' must be uint8 pictures 0-255, but got {windows[key].dtype}")
    rows = {key: len(windows[key]) for key in obs_spec}
    if len(set(rows.values())) > 1:
        sizes = ", ".join(f"{key} {size}" for key, size in rows.items())
        raise ObservationError(f"observations must have one batch size, but got {sizes}")
    return next(iter(rows.values()))


def check_noise(noise: Any, rows: int, noise_shape: tuple[int, ...]) -> None:
    """Raises unless the noise of a prediction fits.

    Args:
        noise: (B, *noise_shape), NumPy or torch.
        rows: B.
        noise_shape: of one row.

    Raises:
        ObservationError: it has another shape.
    """
    if tuple(noise.shape) != (rows, *noise_shape):
        raise ObservationError(f"noise must be {(rows, *noise_shape)}, but got {tuple(noise.shape)}")


def _array(key: str, field: ObsField, value: object) -> Array:
    """Returns one field as float32 (uint8 for images), with its shape checked."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors on a device
        raise ObservationError(
            f"observation '{key}' must be an array, but got {type(value).__name__}: {error}"
        ) from error
    converted = _image(key, array) if field.is_picture else _numbers(key, array)
    trailing = array.shape[-len(field.shape) :] if field.shape else ()
    if array.ndim not in (len(field.shape), len(field.shape) + 1) or trailing != field.shape:
        raise ObservationError(
            f"observation '{key}' must have shape {field.shape} or (num_envs, {', '.join(map(str, field.shape))}), "
            f"but got {array.shape}; {_shape_remedy(field, array.shape)}"
        )
    return converted


def _numbers(key: str, array: Array) -> Array:
    if array.dtype.kind not in "fiu":
        raise ObservationError(
            f"observation '{key}' must be numbers that fit float32, but got dtype {array.dtype}; "
            f"convert it with .astype(np.float32)"
        )
    if array.dtype == np.float32:
        return array.copy()
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and check_finite says so
        return array.astype(np.float32)


def _image(key: str, array: Array) -> Array:
    if array.dtype != np.uint8:
        remedy = (
            "if it lies in [0, 1], send (255 * image).round().astype(np.uint8)"
            if array.dtype.kind == "f"
            else "convert it with .astype(np.uint8)"
        )
        raise ObservationError(
            f"observation '{key}' must be an image of uint8 0-255 (height, width, channels), but got dtype "
            f"{array.dtype}; {remedy}"
        )
    return array


def _shape_remedy(field: ObsField, got: tuple[int, ...]) -> str:
    shape = field.shape
    if field.is_picture and len(got) >= 3 and got[-3:] == (shape[-1], *shape[:-1]):
        return "the channels come first here: send np.moveaxis(image, -3, -1)"
    if got[1:2] and got[2:] == shape:
        return "send one time step: the controller keeps the history itself"
    return "send the field as the policy was trained on it"


def _listed(obs_spec: ObsSpec) -> str:
    return ", ".join(f"{key} {field.shape}" for key, field in obs_spec.items())
