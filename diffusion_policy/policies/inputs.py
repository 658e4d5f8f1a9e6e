"""What a policy is asked with, NumPy or torch, as checked tensors on its device.

Letters: B batch, To obs_horizon.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.chunk import KnownActions
from diffusion_policy.policies.observation_check import check_noise, check_windows

Array = Tensor | np.ndarray[Any, Any]


def observed(obs: Mapping[str, Array], obs_spec: ObsSpec, obs_horizon: int, device: torch.device) -> dict[str, Tensor]:
    """Returns obs {key: (B, To, *shape)} as tensors, float32 unless uint8.

    Raises:
        ObservationError: a key, shape or dtype is not as in `obs_spec`.
    """
    tensors = {key: _as_tensor(obs[key], key, device) for key in obs_spec if key in obs}
    check_windows(tensors, obs_spec, obs_horizon)
    return {key: value if value.dtype == torch.uint8 else value.float() for key, value in tensors.items()}


def given_noise(noise: Array | None, rows: int, noise_shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns noise (B, *noise_shape) as a float32 tensor, drawn from torch's global generator when None.

    Raises:
        ObservationError: it has another shape.
    """
    if noise is None:
        return torch.randn(rows, *noise_shape, device=device)
    z = torch.as_tensor(noise, device=device, dtype=torch.float32)
    check_noise(z, rows, noise_shape)
    return z


def known_actions(
    known: KnownActions, rows: int, pred_horizon: int, action_spec: ActionSpec, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns actions (B, Tp, Da) and weights (B, Tp) as float32 tensors.

    Raises:
        ObservationError: they have other shapes, are not finite, or a weight is outside [0, 1].
    """
    actions, weight = np.asarray(known.actions), np.asarray(known.weight)
    expected, steps = (rows, pred_horizon, *action_spec.shape), (rows, pred_horizon)
    if actions.shape != expected or weight.shape != steps:
        raise ObservationError(
            f"known actions and weights must be {expected} and {steps}, but got {actions.shape} and {weight.shape}"
        )
    if not np.isfinite(actions).all() or not ((weight >= 0) & (weight <= 1)).all():
        raise ObservationError("known actions must be finite and their weights in [0, 1], but some are not")
    flat = torch.as_tensor(actions.reshape(rows, pred_horizon, -1), device=device, dtype=torch.float32)
    return flat, torch.as_tensor(weight, device=device, dtype=torch.float32)


def _as_tensor(value: Array, key: str, device: torch.device) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise ObservationError(f"observation '{key}' must be numbers, but got dtype {value.dtype}")
        value = np.ascontiguousarray(value)  # torch takes no negative strides (a flipped picture has them)
    return torch.as_tensor(value, device=device)
