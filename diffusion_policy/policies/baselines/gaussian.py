"""A Gaussian policy: the mean by a plain network, one learned standard deviation a number, whatever is observed.

As in IQL (Kostrikov et al. 2021, appendix): the mean is squashed by tanh, the logarithm of the deviation is a parameter
in [-5, 2], and evaluation takes the mean. Trained by its likelihood it is Gaussian behaviour cloning.

Letters: B batch, Tp pred_horizon, Da numbers in an action, Dc condition size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.models.mlp import check_sizes, mlp
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig

_LOG_STD = (-5.0, 2.0)


@dataclass(frozen=True)
class GaussianConfig:
    """The network, and how it answers.

    Args:
        hidden_dims: sizes of its layers, with ReLU between them.
        dropout: share of features dropped in training, after each layer.
        deterministic: answer with the mean; false draws.
    """

    hidden_dims: tuple[int, ...] = (256, 256)
    dropout: float = 0.0
    deterministic: bool = True

    def __post_init__(self) -> None:
        check_sizes("policy.hidden_dims", self.hidden_dims, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class GaussianPolicyConfig(PolicyConfig):
    """A Gaussian policy."""

    policy: GaussianConfig = field(default_factory=GaussianConfig)


@register_policy("gaussian")
class GaussianPolicy(Policy):
    """A Gaussian with a learned mean; see `Policy`."""

    config: GaussianPolicyConfig
    config_class = GaussianPolicyConfig

    def __init__(self, config: GaussianPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__(config, obs_spec, action_spec)
        own = config.policy
        self._chunk = (config.horizons.pred_horizon, action_spec.size)
        sizes = (self.encoder.cond_dim, *own.hidden_dims, math.prod(self._chunk))
        bend = nn.ReLU() if config.encoder.hidden_dims else nn.Identity()  # the encoder's layers end without one
        self.network = nn.Sequential(bend, mlp(sizes, dropout=own.dropout, activation=nn.ReLU))
        self.log_std = nn.Parameter(torch.zeros(self._chunk))

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """(Tp, Da), or (0,) where it answers with the mean."""
        return (0,) if self.config.policy.deterministic else self._chunk

    @property
    def reach(self) -> float | None:
        """The bound of tanh."""
        return 1.0

    def mean(self, cond: Tensor) -> Tensor:
        """Returns the means (B, Tp, Da) for cond (B, Dc), within +-1."""
        return self.network(cond).tanh().unflatten(1, self._chunk)  # type: ignore[no-any-return]

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns minus the logarithm of the density of the whole chunk (B,), up to no constant."""
        log_std = self.log_std.clamp(*_LOG_STD)
        off = (self.action_normalizer.normalize(action) - self.mean(self.condition(obs))) / log_std.exp()
        return (0.5 * off.square() + log_std + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns the means (B, Tp, Da), or samples, which may leave +-1 a little, within it."""
        mean = self.mean(cond)
        if self.config.policy.deterministic:
            return mean
        return (mean + self.log_std.clamp(*_LOG_STD).exp() * noise).clamp(-1, 1)
