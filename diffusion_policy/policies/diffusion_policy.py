"""The diffusion policy (Chi et al. 2023): encoder + denoiser + process + normalisers in one stateless object.

Letters: B batch, To/Ta/Tp obs/action/pred horizon, Da numbers in an action, Dc condition size, S extra noises.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, Horizons, ObsSpec
from diffusion_policy.diffusion.process import DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.models import ensemble as _registers_ensemble  # noqa: F401
from diffusion_policy.models import unet1d as _registers_unet1d  # noqa: F401
from diffusion_policy.models.denoiser import make_denoiser
from diffusion_policy.models.normalizer import LinearNormalizer, check_mode
from diffusion_policy.models.observation import EncoderConfig, ObservationEncoder
from diffusion_policy.policies.checkpoint import read_policy_file, write_policy_file
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.device import pick_device
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.policies.observation_check import check_noise, check_windows
from diffusion_policy.settings import build, plain, section

Array = Tensor | np.ndarray[Any, Any]


@dataclass(frozen=True)
class NormalizationConfig:
    """How fields are normalised (see `LinearNormalizer.fit`).

    Args:
        obs: mode for every observation field.
        action: mode for actions; `clip_sample` needs one that puts actions into [-1, 1].
    """

    obs: str = "limits"
    action: str = "limits"

    def __post_init__(self) -> None:
        check_mode(self.obs, "normalization.obs")
        check_mode(self.action, "normalization.action")


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that defines a policy besides its schema and weights."""

    horizons: Horizons
    denoiser: Mapping[str, Any]
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    normalization: NormalizationConfig = field(default_factory=NormalizationConfig)

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the configuration written as nested plain values: sections of a YAML file or of policy.pt.

        Raises:
            ConfigError: a section or a setting is unknown or does not fit.
        """
        unknown = sorted(set(settings) - {entry.name for entry in fields(cls)})
        if unknown:
            raise ConfigError(f"unknown section {', '.join(unknown)} of a policy's configuration")
        return cls(
            horizons=build(Horizons, section(settings, "horizons"), "horizons"),
            denoiser=dict(section(settings, "denoiser")),
            encoder=build(EncoderConfig, section(settings, "encoder"), "encoder"),
            diffusion=build(DiffusionConfig, section(settings, "diffusion"), "diffusion"),
            sampler=build(SamplerConfig, section(settings, "sampler"), "sampler"),
            normalization=build(NormalizationConfig, section(settings, "normalization"), "normalization"),
        )

    def to_plain(self) -> dict[str, Any]:
        """Returns what `from_plain` reads."""
        return {
            "horizons": plain(self.horizons),
            "denoiser": plain(self.denoiser),
            "encoder": plain(self.encoder),
            "diffusion": plain(self.diffusion),
            "sampler": plain(self.sampler),
            "normalization": plain(self.normalization),
        }


class DiffusionPolicy(nn.Module):
    """Predicts chunks of actions from windows of observations. Holds no episode state; see the controller.

    Args:
        config: horizons, networks, process, sampler, normalisation.
        obs_spec: the observation schema.
        action_spec: the action schema.

    Raises:
        ConfigError: settings that contradict each other.
    """

    def __init__(self, config: PolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__()
        _check_clipping(config, action_spec)
        self.config, self.obs_spec, self.action_spec = config, obs_spec, action_spec
        self.horizons = config.horizons
        self.encoder = ObservationEncoder(obs_spec, config.horizons.obs_horizon, config.encoder)
        raw = self.encoder.raw_keys
        # a list, not a dict: field names like "observation.state" or "items" are no names for modules
        self.obs_normalizers = nn.ModuleList(
            nn.Identity() if key in raw else LinearNormalizer(field.shape) for key, field in obs_spec.items()
        )
        self.action_normalizer = LinearNormalizer((action_spec.size,))
        self.denoiser = make_denoiser(
            config.denoiser,
            action_dim=action_spec.size,
            cond_dim=self.encoder.cond_dim,
            pred_horizon=config.horizons.pred_horizon,
        )
        self.process = DiffusionProcess(config.diffusion)
        self.sampler = Sampler(self.process, config.sampler)
        self.info = CheckpointInfo()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard-normal noise of one prediction: (Tp, Da), or (1 + S, Tp, Da) if steps add noise."""
        chunk = (self.horizons.pred_horizon, self.action_spec.size)
        extra = self.sampler.num_noises
        return (1 + extra, *chunk) if extra else chunk

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.action_normalizer.scale.device

    @property
    def normalized_keys(self) -> list[str]:
        """The observation fields that have a normaliser: all but those whose encoder takes them as recorded."""
        return [key for key in self.obs_spec if key not in self.encoder.raw_keys]

    def fit_normalizers(self, obs: Mapping[str, Tensor], action: Tensor) -> None:
        """Sets all normalisers from data.

        Args:
            obs: {key: (N, *shape)} of `normalized_keys`, all steps of the training episodes.
            action: (N, Da).
        """
        modes = self.config.normalization
        for key, normalizer in zip(self.obs_spec, self.obs_normalizers, strict=True):
            if isinstance(normalizer, LinearNormalizer):
                normalizer.fit(obs[key], check_mode(modes.obs, "normalization.obs"))
        bounds = self.action_spec.bounds()
        limits = None if bounds is None else (torch.tensor(bounds[0]), torch.tensor(bounds[1]))
        self.action_normalizer.fit(action, check_mode(modes.action, "normalization.action"), limits)

    def condition(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Returns the condition vector (B, Dc) of observations {key: (B, To, *shape)} in env units."""
        return self.encoder(  # type: ignore[no-any-return]
            {key: normalizer(obs[key]) for key, normalizer in zip(self.obs_spec, self.obs_normalizers, strict=True)}
        )

    def loss(self, obs: Mapping[str, Tensor], action: Tensor, *, noise: Tensor, t: Tensor) -> Tensor:
        """Returns the denoising loss of each sample (B,), the mean over its Tp x Da numbers.

        Chi et al. 2023, eq. 5; all Tp steps count, padded ones too, as published.

        Args:
            obs: {key: (B, To, *shape)} in env units.
            action: (B, Tp, Da) in env units.
            noise: standard normal (B, Tp, Da).
            t: timesteps (B,).
        """
        cond = self.condition(obs)
        x0 = self.action_normalizer.normalize(action)
        return self.process.loss(lambda x, at: self.denoiser(x, at, cond), x0, noise=noise, t=t, reduction="none")

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns normalised chunks (B, Tp, Da) under cond (B, Dc); differentiable.

        Args:
            cond: (B, Dc).
            noise: (B, *noise_shape).
        """
        return self.sampler(lambda x, t: self.denoiser(x, t, cond), *self.sampler.split(noise))

    def predict(self, obs: Mapping[str, Array], noise: Array | None = None) -> ActionChunk[Any]:
        """Returns the actions to execute and the whole prediction, in env units.

        Args:
            obs: {key: (B, To, *shape)}, NumPy or torch; the result is of the same kind.
            noise: standard normal (B, *noise_shape); drawn from torch's global generator when None.

        Raises:
            ObservationError: a key, shape or dtype is not as in `obs_spec`.
        """
        wants_numpy = all(isinstance(value, np.ndarray) for value in obs.values())
        with torch.inference_mode():
            inputs = self._checked(obs)
            batch = next(iter(inputs.values())).shape[0]
            z = (
                torch.randn(batch, *self.noise_shape, device=self.device)
                if noise is None
                else self._noise(noise, batch)
            )
            x0 = self.sample(self.condition(inputs), z)
            flat = self.action_normalizer.unnormalize(x0)  # (B, Tp, Da)
        prediction = flat.reshape(*flat.shape[:2], *self.action_spec.shape)
        return ActionChunk.of(prediction.cpu().numpy() if wants_numpy else prediction, self.horizons)

    def _checked(self, obs: Mapping[str, Array]) -> dict[str, Tensor]:
        """Returns obs as tensors on the policy's device, float32 unless uint8, after checking keys and shapes."""
        tensors = {key: _as_tensor(obs[key], key, self.device) for key in self.obs_spec if key in obs}
        check_windows(tensors, self.obs_spec, self.horizons.obs_horizon)
        return {key: value if value.dtype == torch.uint8 else value.float() for key, value in tensors.items()}

    def _noise(self, noise: Array, batch: int) -> Tensor:
        z = torch.as_tensor(noise, device=self.device, dtype=torch.float32)
        check_noise(z, batch, self.noise_shape)
        return z

    def with_sampler(self, **changes: Any) -> Self:
        """Returns this policy with another sampler, e.g. `num_inference_steps=4`; weights are shared."""
        known = plain(self.config.sampler)
        settings = build(SamplerConfig, {**known, **changes}, "sampler")
        other = copy(self)  # shallow: modules and their tensors are the same objects
        other.config = replace(self.config, sampler=settings)
        other.sampler = Sampler(self.process, settings)
        return other

    def save(self, path: str | Path, info: CheckpointInfo | None = None) -> None:
        """Writes policy.pt: plain data and tensors, readable with `torch.load(weights_only=True)`."""
        write_policy_file(
            path,
            config=self.config.to_plain(),
            obs_spec=plain(self.obs_spec),
            action_spec=plain(self.action_spec),
            state_dict=self.state_dict(),
            backbone_module=type(self.denoiser).__module__,
            info=info or self.info,
        )

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Returns the policy in a policy.pt, in evaluation mode.

        Nothing in the file is executed or imported.

        Args:
            path: the file.
            device: auto, cpu, cuda, cuda:1, mps or a torch.device.

        Raises:
            MissingFileError: no such file.
            ConfigError: no such device on this machine.
            CheckpointError: damaged, of a newer format, not a policy, or needs a module to be imported first.
        """
        chosen = pick_device(device)
        saved = read_policy_file(path)
        policy = saved.build(cls, PolicyConfig)
        return policy.to(chosen).eval()


def _as_tensor(value: Array, key: str, device: torch.device) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise ObservationError(f"observation '{key}' must be numbers, but got dtype {value.dtype}")
        value = np.ascontiguousarray(value)  # torch takes no negative strides (a flipped picture has them)
    return torch.as_tensor(value, device=device)


def _check_clipping(config: PolicyConfig, action_spec: ActionSpec) -> None:
    """`clip_sample` clamps the denoised chunk: right only where normalisation puts every action inside.

    A Gaussian clipped at one standard deviation loses 32 % of its mass: a bug that was really shipped.
    """
    if not config.diffusion.clip_sample:
        return
    mode = config.normalization.action
    if mode in ("gaussian", "quantile"):
        raise ConfigError(
            f"clip_sample=true needs actions inside [-1, 1], but normalization.action={mode} leaves some outside; "
            f"use normalization.action=limits or diffusion.clip_sample=false"
        )
    if mode == "identity" and action_spec.bounds() is None:
        raise ConfigError(
            "clip_sample=true with normalization.action=identity needs action.low and action.high; "
            "give them in the task, or use normalization.action=limits or diffusion.clip_sample=false"
        )
