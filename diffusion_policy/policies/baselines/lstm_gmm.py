"""LSTM-GMM: a recurrent network whose answer at each step is a mixture of Gaussians (Mandlekar et al. 2021).

The strongest baseline of its time (BC-RNN of robomimic, as in Chi et al. 2023): sequences of 10 steps, 2 layers, 5
modes, samples with almost no noise around a mode's mean. One deviation: the published policy carries its hidden
state for 10 steps of an episode and then drops it; this one is stateless and reads the last To observations anew at
every step, as it does in training.

Letters: B batch, To/Tp obs/pred horizon (equal here), Da numbers in an action, Dc condition size of a step, K modes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.mixture import Mixture, MixtureHead
from diffusion_policy.policies.baselines.stepwise import check_stepwise
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig


@dataclass(frozen=True)
class LstmGmmConfig:
    """The recurrent network and its mixture.

    Args:
        hidden_dim: of the LSTM; 400 is published for vectors, 1000 for pictures.
        layers: of the LSTM.
        modes: K.
        min_std: smallest standard deviation of a mode, in normalised actions.
        sample_std: of the noise around a mode's mean when acting, in normalised actions.
    """

    hidden_dim: int = 400
    layers: int = 2
    modes: int = 5
    min_std: float = 1e-4
    sample_std: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.hidden_dim, self.layers, self.modes) < 1 or not self.min_std > 0 or self.sample_std < 0:
            raise ConfigError(
                "policy: expected hidden_dim, layers and modes >= 1, min_std > 0 and sample_std >= 0, but got "
                f"{self.hidden_dim}, {self.layers}, {self.modes}, {self.min_std} and {self.sample_std}"
            )


@dataclass(frozen=True, kw_only=True)
class LstmGmmPolicyConfig(PolicyConfig):
    """A recurrent policy."""

    policy: LstmGmmConfig = field(default_factory=LstmGmmConfig)


@register_policy("lstm_gmm")
class LstmGmmPolicy(Policy):
    """Behaviour cloning by maximum likelihood of a recurrent mixture; see `Policy`."""

    config: LstmGmmPolicyConfig
    config_class = LstmGmmPolicyConfig
    per_step = True

    def __init__(self, config: LstmGmmPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        check_stepwise("lstm_gmm", config.horizons)
        super().__init__(config, obs_spec, action_spec)
        own = config.policy
        self.lstm = nn.LSTM(self.encoder.cond_dim, own.hidden_dim, own.layers, batch_first=True)
        self.head = MixtureHead(own.hidden_dim, action_spec.size, own.modes, own.min_std)

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """(Tp, 1 + Da): for each step, which mode, and how far beside its mean."""
        return (self.horizons.pred_horizon, 1 + self.action_spec.size)

    @property
    def reach(self) -> float:
        """Means are squashed into the range of normalised actions."""
        return 1.0

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns the negative log-likelihood (B,), the mean over the steps."""
        return -self._mixture(self.condition(obs)).log_prob(self.action_normalizer.normalize(action)).mean(1)

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns an action for each observed step, (B, Tp, Da), of cond (B, To, Dc); the last one is executed."""
        return self._mixture(cond).sample(noise, self.config.policy.sample_std)

    def _mixture(self, cond: Tensor) -> Mixture:
        hidden, _ = self.lstm(cond)  # (B, To, hidden_dim)
        return self.head(hidden)  # type: ignore[no-any-return]
