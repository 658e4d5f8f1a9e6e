"""A policy of ours with the methods of LeRobot's policies, for programs that are written to those.

LeRobot's policies see tensors with a batch in front, pictures as floats 0-1 with channels first, under names like
`observation.state` and `observation.images.front`. LeRobot is not imported, nor needed.

Letters: B rows, Ta action_horizon, Da the axes of one action.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.config import ObsSpec
from diffusion_policy.errors import CheckpointError, ConfigError, ObservationError
from diffusion_policy.policies.chunk import Array, ChunkPolicy, FloatArray, clipped
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.episode_slots import EpisodeSlots
from diffusion_policy.policies.observation_check import check_finite, check_noise, check_observation


class LeRobotStylePolicy:
    """`reset`, `select_action` and `predict_action_chunk` as LeRobot 0.4 spells them, around any policy of ours.

    Observations come in, and actions go out, in the robot's units: normalisation is inside the policy, so LeRobot's
    pre- and postprocessors are not to be put around it. It acts as `RecedingHorizonController` does, in lock-step for
    all rows of a batch.

    Args:
        policy: what predicts.
        keys: LeRobot's name of each of the policy's observations; None for `default_keys`. Several vectors may have
            the same: they are parts of it, in their order in the policy.
        seeds: as in `reset`, for the first episode.
    """

    name = "diffusion_policy"

    def __init__(
        self, policy: ChunkPolicy, *, keys: Mapping[str, str] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        self.policy = policy
        self.keys = {**default_keys(policy.obs_spec), **(keys or {})}
        if unknown := sorted(set(self.keys) - set(policy.obs_spec)):
            raise ConfigError(
                f"no observation is called {', '.join(unknown)}, the policy has: {', '.join(policy.obs_spec)}"
            )
        self._seeds: list[int] | None = None
        self._slots: EpisodeSlots | None = None
        self.reset(seeds)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        precision: str | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> "LeRobotStylePolicy":
        """Returns the policy in a file; see `RecedingHorizonController.load`."""
        return cls(RecedingHorizonController.load(path, device=device, precision=precision).policy, keys=keys)

    def reset(self, seeds: Sequence[int] | None = None) -> None:
        """Begins a new episode: what was seen and queued is forgotten.

        Args:
            seeds: one number a row, which fixes all the noise of its episode; None draws fresh entropy.
        """
        self._seeds, self._slots = None if seeds is None else [int(seed) for seed in seeds], None

    def select_action(self, batch: Mapping[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Returns the actions of now (B, *Da).

        Args:
            batch: the observations of now, {name: (B, ...)}; other entries are ignored.
            noise: (B, *noise_shape) of the policy, used if a chunk is predicted; None draws it.

        Raises:
            ObservationError: an observation is missing, or has another shape.
        """
        slots = self._observe(batch)
        rows = np.ones(slots.num_envs, dtype=bool)
        if not slots.left[0]:
            slots.queue[:] = self._predicted(slots, noise)
            slots.left[:] = self.policy.horizons.action_horizon
        return torch.from_numpy(slots.pop(rows)).to(_device(batch))

    def predict_action_chunk(self, batch: Mapping[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Returns chunks (B, Ta, *Da) that begin with the actions of now; what `select_action` has queued stays.

        LeRobot's reads what `select_action` has seen before; this one sees `batch` itself.

        Args:
            batch: see `select_action`.
            noise: see `select_action`.
        """
        slots = self._observe(batch)
        return torch.from_numpy(self._predicted(slots, noise).copy()).to(_device(batch))

    def _observe(self, batch: Mapping[str, Tensor]) -> EpisodeSlots:
        """Returns the episodes' memory with the observations of now in it."""
        arrays, single = check_observation(self._translated(batch), self.policy.obs_spec)
        count = len(next(iter(arrays.values())))
        if single:
            raise ObservationError("expected a batch of observations, but they have no leading axis; add one")
        check_finite(arrays, np.ones(count, dtype=bool))
        if self._slots is None:
            if self._seeds is not None and len(self._seeds) != count:
                raise ConfigError(f"seeds must be one number a row, {count}, but got {len(self._seeds)}")
            self._slots = EpisodeSlots(count, False, self._seeds, self.policy.horizons, self.policy.action_spec)
        slots = self._slots
        if slots.num_envs != count:
            raise ObservationError(f"expected {slots.num_envs} rows, but got {count}; call reset() before it changes")
        slots.window = slots.advanced(arrays, np.ones(count, dtype=bool))
        slots.fresh[:] = False
        return slots

    def _predicted(self, slots: EpisodeSlots, noise: Tensor | None) -> FloatArray:
        rows = np.arange(slots.num_envs)
        if noise is None:
            drawn = slots.noise(rows, self.policy.noise_shape)
        else:
            drawn = noise.detach().cpu().float().numpy()
            check_noise(drawn, slots.num_envs, self.policy.noise_shape)
        actions = self.policy.predict(slots.window, drawn).actions
        if not np.isfinite(actions).all():
            raise CheckpointError("the policy predicted actions that are not finite; load an earlier checkpoint")
        return clipped(actions, self.policy.action_spec)

    def _translated(self, batch: Mapping[str, Tensor]) -> dict[str, Array]:
        """Returns a batch under our names, pictures as bytes with channels last."""
        missing = sorted({name for name in self.keys.values() if name not in batch})
        if missing:
            got = ", ".join(map(str, batch)) or "nothing"
            raise ObservationError(f"the batch lacks {', '.join(missing)}: it has {got}; give keys= if names differ")
        made: dict[str, Array] = {}
        begun: dict[str, int] = {}
        for key, field in self.policy.obs_spec.items():
            name = self.keys[key]
            value = batch[name].detach().cpu().numpy()
            if field.is_picture:
                made[key] = _bytes(name, value)
                continue
            if list(self.keys.values()).count(name) > 1:
                first = begun.get(name, 0)
                begun[name] = first + field.size
                value = value[:, first : first + field.size].reshape(len(value), -1)
            made[key] = value.reshape(-1, *field.shape) if value[:1].size == field.size else value
        for name, size in begun.items():
            if batch[name].shape[1:] != (size,):
                raise ObservationError(f"{name} must be (B, {size}), but got {tuple(batch[name].shape)}")
        return made


def default_keys(obs_spec: ObsSpec) -> dict[str, str]:
    """Returns LeRobot's name of each observation: vectors are parts of `observation.state`, in their order.

    A field that has such a name already, as those of imported policies, keeps it.
    """
    return {
        key: key
        if key.startswith("observation.")
        else f"observation.images.{key}"
        if field.is_picture
        else "observation.state"
        for key, field in obs_spec.items()
    }


def _bytes(name: str, value: Array) -> Array:
    """Returns pictures (B, H, W, C) of bytes, of floats 0-1 or bytes (B, C, H, W)."""
    if value.ndim != 4:
        raise ObservationError(f"{name} must be (B, channels, height, width), but got {value.shape}")
    if value.dtype.kind == "f":
        if not (np.isfinite(value).all() and value.min() >= 0 and value.max() <= 1):
            raise ObservationError(f"{name} must be floats 0-1, but reaches from {value.min()} to {value.max()}")
        value = (255 * value).round().astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(value, 1, -1))


def _device(batch: Mapping[str, Tensor]) -> torch.device:
    return next((value.device for value in batch.values() if isinstance(value, Tensor)), torch.device("cpu"))
