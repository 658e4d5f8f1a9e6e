"""What all agents of offline reinforcement learning share: critics with slow copies, and targets made of transitions.

Letters: B batch, K critics, A numbers in the executed actions.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from diffusion_policy.agents.objective import PolicyObjective
from diffusion_policy.data.transitions import TransitionBatch
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.critic import Critic, CriticConfig
from diffusion_policy.policies.policy import Policy
from diffusion_policy.registry import Registry
from diffusion_policy.settings import build, section


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What every agent can be told.

    Args:
        discount: of a step of the control rate.
        target_rate: share of the critic that its slow copy takes on at each step.
        critic: its networks.
    """

    discount: float = 0.99
    target_rate: float = 0.005
    critic: CriticConfig = field(default_factory=CriticConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1 or not 0 < self.target_rate <= 1:
            raise ConfigError(
                f"agent: expected discount in [0, 1] and target_rate in (0, 1], but got {self.discount} and "
                f"{self.target_rate}"
            )

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the configuration in a section `agent`, without its name.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        critic = CriticConfig.from_plain(section(settings, "critic"))
        return build(cls, {**settings, "critic": critic}, "agent")


class Agent(PolicyObjective):
    """A policy and the critics that judge it.

    Args:
        policy: the actor.
        config: what `config_class` holds.

    Attributes:
        critic: values observations and executed actions, twice, so that the smaller counts (Fujimoto et al. 2018).
        slow_critic: its slow copy, for targets.
        name: of the kind, in configuration.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[AgentConfig]] = AgentConfig

    def __init__(self, policy: Policy, config: AgentConfig) -> None:
        super().__init__(policy)
        self.config = config
        horizons = policy.horizons
        size = horizons.action_horizon * policy.action_spec.size
        self.critic = Critic(policy.obs_spec, horizons.obs_horizon, size, 2, config.critic)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self._figures: dict[str, Tensor] = {}
        networks = {"policy": policy, "critic": self.critic, "slow_critic": self.slow_critic}
        self._model = _Networks(networks).to(policy.device).train()

    @property
    def model(self) -> nn.Module:
        """Policy and critics."""
        return self._model

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Policy and critic."""
        return (self.policy, self.critic)

    @property
    def row_group(self) -> int:
        """A batch is one piece: its mean Q is part of the loss."""
        return 0

    @property
    def figures(self) -> Mapping[str, Tensor]:
        """What the last loss noted."""
        return self._figures

    def load_pretrained(self) -> None:
        """See `PolicyObjective`; the slow critic begins as the critic's copy."""
        super().load_pretrained()
        self.critic.encoder.load_pretrained()
        self.slow_critic.load_state_dict(self.critic.state_dict())

    def note(self, **figures: Tensor) -> None:
        """Keeps the means of some tensors for people to watch."""
        self._figures.update({name: value.detach().float().mean() for name, value in figures.items()})

    @torch.no_grad()
    def after_step(self) -> None:
        """Moves the slow critic."""
        follow(self.slow_critic, self.critic, self.config.target_rate)

    def executed_actions(self, batch: TransitionBatch) -> Tensor:
        """Returns the data's executed actions, normalised and flat: (B, A)."""
        return self.policy.executed(self.policy.action_normalizer.normalize(batch.action))

    def critic_loss(self, obs: dict[str, Tensor], action: Tensor, target: Tensor) -> Tensor:
        """Returns the squared errors of both critics (B,) towards target (B,); obs and action (B, A) normalised."""
        value: Tensor = self.critic(obs, action)  # (K, B)
        loss = (value - target).square().sum(0)
        self.note(q=value, q_target=target, critic_loss=loss)
        return loss


class _Networks(nn.ModuleDict):
    """Networks of which the slow critic never trains: it judges, in rollouts too, without crops and dropout."""

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all others."""
        super().train(mode)
        self["slow_critic"].eval()
        return self


A = TypeVar("A", bound=type[Agent])
AGENTS: Registry[type[Agent]] = Registry("agent")


def register_agent(name: str) -> Callable[[A], A]:
    """Returns a decorator that makes a kind of agent known as `agent.name=name`."""

    def add(cls: A) -> A:
        cls.name = name
        AGENTS.register(name)(cls)
        return cls

    return add


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Lets gradients pass through a module, but not into it."""
    parameters = [each for each in module.parameters() if each.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Moves the parameters of a slow copy by a share `rate` of the way (Polyak averaging)."""
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), rate)
