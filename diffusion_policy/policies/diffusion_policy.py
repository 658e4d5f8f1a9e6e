"""The diffusion policy (Chi et al. 2023): encoder + denoiser + process + normalisers in one stateless object.

Letters: B batch, To/Ta/Tp obs/action/pred horizon, Da numbers in an action, Dc condition size, S extra noises.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.diffusion.guidance import guided
from diffusion_policy.diffusion.process import DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.errors import ConfigError
from diffusion_policy.models import ensemble as _registers_ensemble  # noqa: F401
from diffusion_policy.models import mlp_denoiser as _registers_mlp  # noqa: F401
from diffusion_policy.models import transformer as _registers_transformer  # noqa: F401
from diffusion_policy.models import unet1d as _registers_unet1d  # noqa: F401
from diffusion_policy.policies.chunk import ActionChunk, FloatArray, KnownActions
from diffusion_policy.policies.inputs import Array, given_noise, known_actions, observed
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig
from diffusion_policy.settings import build, plain


@dataclass(frozen=True, kw_only=True)
class DiffusionPolicyConfig(PolicyConfig):
    """A policy that denoises: a network, a process, a sampler."""

    denoiser: Mapping[str, Any]
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)


@register_policy("diffusion")
class DiffusionPolicy(Policy):
    """Behaviour cloning by denoising; see `Policy`.

    Args:
        config: horizons, networks, process, sampler, normalisation.
        obs_spec: the observation schema.
        action_spec: the action schema.

    Raises:
        ConfigError: settings that contradict each other.
    """

    config: DiffusionPolicyConfig
    config_class = DiffusionPolicyConfig

    def __init__(self, config: DiffusionPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        _check_clipping(config, action_spec)
        super().__init__(config, obs_spec, action_spec)
        self.denoiser = self.make_denoiser(config.denoiser)
        self.process = DiffusionProcess(config.diffusion)
        self.sampler = Sampler(self.process, config.sampler)

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard-normal noise of one prediction: (Tp, Da), or (1 + S, Tp, Da) if steps add noise."""
        chunk = (self.horizons.pred_horizon, self.action_spec.size)
        extra = self.sampler.num_noises
        return (1 + extra, *chunk) if extra else chunk

    @property
    def row_group(self) -> int:
        """What the denoiser says; see `Denoiser`."""
        return int(getattr(self.denoiser, "row_group", 1))

    @property
    def reach(self) -> float | None:
        """The bound to which samplers clip."""
        diffusion = self.config.diffusion
        return diffusion.clip_sample_range if diffusion.clip_sample else None

    @property
    def home(self) -> str:
        """The module of the denoiser."""
        return type(self.denoiser).__module__

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        """Returns noise (B, Tp, Da) and timesteps (B,)."""
        shape = (rows, self.horizons.pred_horizon, self.action_spec.size)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return {"noise": noise, "t": self.process.sample_timesteps(rows, generator)}

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns the denoising loss (B,) at random timesteps."""
        return self.loss(obs, action, noise=draws["noise"], t=draws["t"])

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
            noise: (B, *sample_noise_shape).
        """
        return self.sampler(lambda x, t: self.denoiser(x, t, cond), *self.sampler.split(noise))

    def predict_guided(
        self, obs: Mapping[str, Array], noise: Array | None, known: KnownActions
    ) -> ActionChunk[FloatArray]:
        """Returns chunks that agree with known actions; see `diffusion.guidance`.

        Each denoising step is a forward and a backward pass of the network as it is: several times `predict`.

        Args:
            obs: {key: (B, To, *shape)}, NumPy or torch.
            noise: standard normal (B, *noise_shape); drawn from torch's global generator when None.
            known: of these rows.

        Raises:
            ConfigError: a critic selects among this policy's samples.
            ObservationError: observations, noise or known actions have other shapes, or these are not finite.
        """
        if self.selector is not None:
            raise ConfigError("a policy whose samples are selected by a critic cannot be guided; use another strategy")
        with torch.no_grad():  # not inference_mode, whose tensors no gradient goes through
            inputs = observed(obs, self.obs_spec, self.horizons.obs_horizon, self.device)
            rows = next(iter(inputs.values())).shape[0]
            z = given_noise(noise, rows, self.noise_shape, self.device)
            actions, weight = known_actions(known, rows, self.horizons.pred_horizon, self.action_spec, self.device)
            cond = self.condition(inputs)
            held = self.action_normalizer.normalize(actions)  # (B, Tp, Da)
            denoise = guided(self.process, lambda x, t: self.denoiser(x, t, cond), held, weight[..., None])
            flat = self.action_normalizer.unnormalize(self.sampler(denoise, *self.sampler.split(z)))
        prediction: FloatArray = flat.reshape(*flat.shape[:2], *self.action_spec.shape).cpu().numpy()
        return ActionChunk.of(prediction, self.horizons)

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampler's settings, and the selector's if there is one."""
        return {"sampler": plain(self.config.sampler), **super().sampling}

    def with_sampler(self, **changes: Any) -> Self:
        """Returns this policy with another sampler, e.g. `num_inference_steps=4`; weights are shared."""
        known = plain(self.config.sampler)
        settings = build(SamplerConfig, {**known, **changes}, "sampler")
        other = copy(self)  # shallow: modules and their tensors are the same objects
        other.config = replace(self.config, sampler=settings)
        other.sampler = Sampler(self.process, settings)
        return other


def _check_clipping(config: DiffusionPolicyConfig, action_spec: ActionSpec) -> None:
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
