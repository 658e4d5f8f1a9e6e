"""Implicit Q-learning (Kostrikov, Nair and Levine 2021): values of the data's own actions, no action ever made up.

V follows an expectile of min Q' (equation 5), Q follows r + discount V(s') (equation 6), and the policy imitates with
weights exp(beta (min Q' - V)), at most 100 (equation 7). For a policy that diffuses there are no weights: it imitates
all, and the best of several samples by Q is executed. That is IDQL (Hansen-Estruch et al. 2023, algorithms 1 and 2),
whose name `idql` is this agent with `weighted=false` and candidates.

In IDQL critics and policy do not look at each other, so a policy that imitates well already can be left as it is
(`train_policy=false`): only the critics learn then, in minutes, whatever the policy's size.

Deviation: value, critics and policy take their steps at the same time, from the same weights.

Letters: B batch, K critics.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_policy.agents.agent import Agent, AgentConfig, register_agent
from diffusion_policy.data.dataset import Batch
from diffusion_policy.data.transitions import TransitionBatch
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.critic import Critic
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.selection import Selector, SelectorConfig

_LARGEST_WEIGHT = 100.0


@dataclass(frozen=True, kw_only=True)
class IQLConfig(AgentConfig):
    """Settings of IQL and IDQL.

    Args:
        expectile: tau of V's loss, in (0, 1); 0.5 is the mean.
        beta: inverse temperature of the weights.
        weighted: imitate by the weights; false imitates all data alike.
        train_policy: false leaves the policy as it is given (init=policy.pt): only critics and values learn.
        num_candidates: samples of a prediction, at deployment; 1 selects nothing.
        temperature: of the softmax over their values; 0 takes the best.
    """

    expectile: float = 0.7
    beta: float = 3.0
    weighted: bool = True
    train_policy: bool = True
    num_candidates: int = 1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.expectile < 1 or self.beta < 0:
            raise ConfigError(
                f"agent: expected expectile in (0, 1) and beta >= 0, but got {self.expectile} and {self.beta}"
            )
        if not self.train_policy and self.num_candidates == 1:
            raise ConfigError(
                "agent.train_policy=false with agent.num_candidates=1 would change nothing: let the critic choose "
                "among several, agent.num_candidates=16, or train the policy"
            )
        SelectorConfig(self.num_candidates, self.temperature)  # refuses what is out of range


@register_agent("iql")
class IQL(Agent):
    """IQL and IDQL; see the module. Any policy will do: its own loss is weighted."""

    config: IQLConfig
    config_class = IQLConfig

    def __init__(self, policy: Policy, config: IQLConfig) -> None:
        if config.num_candidates > 1 and policy.sample_noise_shape == (0,):
            raise ConfigError(
                f"agent.num_candidates={config.num_candidates}: policy '{policy.kind}' draws nothing, so all "
                f"candidates would be equal; set agent.num_candidates=1"
            )
        super().__init__(policy, config)
        horizons = policy.horizons
        self.value = Critic(policy.obs_spec, horizons.obs_horizon, 0, 1, config.critic).to(policy.device)
        self._model["value"] = self.value

    def load_pretrained(self) -> None:
        """See `Objective`."""
        super().load_pretrained()
        self.value.encoder.load_pretrained()

    @property
    def parts(self) -> tuple[torch.nn.Module, ...]:
        """Policy, critic and value, of those that learn."""
        return (self.policy, self.critic, self.value) if self.trains_policy else (self.critic, self.value)

    @property
    def trains_policy(self) -> bool:
        """See `IQLConfig`."""
        return self.config.train_policy

    def draw(self, batch: Batch, rows: int, generator: torch.Generator) -> Draws:
        """Returns what the policy draws."""
        return self.policy.draw(rows, generator)

    def loss(self, batch: TransitionBatch, draws: Draws) -> Tensor:
        """Returns the losses of value, critics and, where it learns, policy (B,)."""
        known, data = self.policy.normalized(batch.obs), self.executed_actions(batch)
        with torch.no_grad():
            judged = self.slow_critic(known, data).amin(0)  # (B,)
            follows = self.value(self.policy.normalized(batch.next_obs))[0]
        value = self.value(known)[0]
        advantage = judged - value
        loss = self.critic_loss(known, data, batch.reward + batch.discount * follows)
        loss = loss + expectile_loss(advantage, self.config.expectile)
        self.note(value=value, advantage=advantage)
        if not self.trains_policy:
            return loss
        imitation = self.policy.losses(batch.obs, batch.action, draws)
        self.note(imitation_loss=imitation)
        if self.config.weighted:
            imitation = imitation * (self.config.beta * advantage.detach()).exp().clamp(max=_LARGEST_WEIGHT)
        return loss + imitation

    def deployed(self, average: Policy) -> Policy:
        """Returns the average, with the slow critic as judge of its candidates if there are several."""
        if self.config.num_candidates == 1:
            return average
        config = SelectorConfig(self.config.num_candidates, self.config.temperature)
        return average.with_selector(Selector(self.slow_critic, config).eval())


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Returns |expectile - 1(difference < 0)| * difference^2, elementwise (Kostrikov et al. 2021, equation 4)."""
    return torch.where(difference < 0, 1 - expectile, expectile) * difference.square()
