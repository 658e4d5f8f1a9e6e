"""Regression: the mean squared error of the actions themselves, by a plain network.

What every other method is measured against. Where demonstrations go two ways it answers with their mean, which may be
none of them. One action at a time (To, Ta, Tp = 2, 1, 2) it is classical behaviour cloning; with chunks it shows what
action sequences alone are worth.

Letters: B batch, Tp pred_horizon, Da numbers in an action, Dc condition size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.models.activations import ACTIVATIONS, Activation
from diffusion_policy.models.mlp import check_sizes, mlp
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig


@dataclass(frozen=True)
class MlpConfig:
    """The network between condition and chunk.

    Args:
        hidden_dims: sizes of its layers, with Mish between them.
        dropout: share of features dropped in training, before each layer but the first.
        activation: mish or relu, between the layers.
        squash: tanh behind the last layer: actions stay within the normaliser's limits, as actors of TD3 do.
    """

    hidden_dims: tuple[int, ...] = (512, 512, 512)
    dropout: float = 0.0
    activation: Activation = "mish"
    squash: bool = False

    def __post_init__(self) -> None:
        check_sizes("policy.hidden_dims", self.hidden_dims, dropout=self.dropout)


@dataclass(frozen=True, kw_only=True)
class MlpPolicyConfig(PolicyConfig):
    """A policy that regresses."""

    policy: MlpConfig = field(default_factory=MlpConfig)


@register_policy("mlp")
class MlpPolicy(Policy):
    """Behaviour cloning by regression; see `Policy`. It draws no noise: equal observations, equal actions."""

    config: MlpPolicyConfig
    config_class = MlpPolicyConfig

    def __init__(self, config: MlpPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__(config, obs_spec, action_spec)
        self._chunk = (config.horizons.pred_horizon, action_spec.size)
        own = config.policy
        sizes = (self.encoder.cond_dim, *own.hidden_dims, self._chunk[0] * self._chunk[1])
        bend = nn.Mish() if config.encoder.hidden_dims else nn.Identity()  # the encoder's layers end without one
        self.network = nn.Sequential(bend, mlp(sizes, dropout=own.dropout, activation=ACTIVATIONS[own.activation]))

    @property
    def reach(self) -> float | None:
        """The bound of tanh, if there is one."""
        return 1.0 if self.config.policy.squash else None

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns the squared error (B,), the mean over the chunk's Tp x Da numbers."""
        predicted = self.sample(self.condition(obs), action)
        return (predicted - self.action_normalizer.normalize(action)).square().flatten(1).mean(1)

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns the chunk (B, Tp, Da) for cond (B, Dc); `noise` has no say."""
        chunk: Tensor = self.network(cond).unflatten(1, self._chunk)
        return chunk.tanh() if self.config.policy.squash else chunk
