"""A flow-matching policy: the denoiser of a diffusion policy, trained as a velocity (Lipman et al. 2023).

Settings as in Black et al. 2024 (pi0): ten Euler steps; times are uniform, which Park et al. 2025 (FQL) found as good.

Letters: B batch, Tp pred_horizon, Da numbers in an action, Dc condition size.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.diffusion.flow import Velocity, flow_loss, integrate
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig
from diffusion_policy.settings import build, plain


@dataclass(frozen=True)
class FlowConfig:
    """How paths are followed.

    Args:
        num_inference_steps: of Euler's rule.
        time_scale: the network sees `time_scale` * t, as if it were one of so many diffusion timesteps.
    """

    num_inference_steps: int = 10
    time_scale: float = 100.0

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1 or not self.time_scale > 0:
            raise ConfigError(
                f"expected num_inference_steps >= 1 and time_scale > 0, but got {self.num_inference_steps} and "
                f"{self.time_scale}"
            )


@dataclass(frozen=True, kw_only=True)
class FlowPolicyConfig(PolicyConfig):
    """A policy that follows a learned velocity field."""

    denoiser: Mapping[str, Any]
    policy: FlowConfig = field(default_factory=FlowConfig)


@register_policy("flow")
class FlowPolicy(Policy):
    """Behaviour cloning by flow matching; see `Policy`."""

    config: FlowPolicyConfig
    config_class = FlowPolicyConfig

    def __init__(self, config: FlowPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.denoiser = self.make_denoiser(config.denoiser)

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """(Tp, Da), where the path of a chunk begins."""
        return (self.horizons.pred_horizon, self.action_spec.size)

    @property
    def row_group(self) -> int:
        """What the denoiser says; see `Denoiser`."""
        return int(getattr(self.denoiser, "row_group", 1))

    @property
    def home(self) -> str:
        """The module of the denoiser."""
        return type(self.denoiser).__module__

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        """Returns noise (B, Tp, Da) and times (B,), uniform in [0, 1]."""
        on: dict[str, Any] = {"generator": generator, "device": generator.device}
        return {"noise": torch.randn((rows, *self.sample_noise_shape), **on), "t": torch.rand(rows, **on)}

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns the error of the velocity (B,)."""
        x1 = self.action_normalizer.normalize(action)
        return flow_loss(self._velocity(self.condition(obs)), x1, noise=draws["noise"], t=draws["t"])

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns the ends (B, Tp, Da) of the paths from noise (B, Tp, Da) under cond (B, Dc); differentiable."""
        return integrate(self._velocity(cond), noise, self.config.policy.num_inference_steps)

    def with_sampler(self, **changes: Any) -> Self:
        """Returns this policy with other settings of `FlowConfig`, e.g. `num_inference_steps=4`; weights are shared."""
        settings = build(FlowConfig, {**plain(self.config.policy), **changes}, "sampler")
        other = copy(self)  # shallow: modules and their tensors are the same objects
        other.config = replace(self.config, policy=settings)
        return other

    def _velocity(self, cond: Tensor) -> Velocity:
        scale = self.config.policy.time_scale
        return lambda x, t: self.denoiser(x, scale * t, cond)
