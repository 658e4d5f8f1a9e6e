"""TD3+BC (Fujimoto and Gu 2021): a deterministic policy that climbs its critic and stays near the data.

The policy's loss is -lambda Q_1(s, pi(s)) + (pi(s) - a)^2 with lambda = alpha / E|Q_1| (equations 3 and 5); it and all
slow copies move every second step. The targets smooth the next action with clipped noise (Fujimoto et al. 2018).

Deviation: the average that stands for the target policy is the loop's; `ema_max` 0.9975 at every step is their 0.995
at every second one.

Letters: B batch, A numbers in the executed actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_policy.agents.agent import Agent, AgentConfig, follow, frozen, register_agent
from diffusion_policy.data.dataset import Batch
from diffusion_policy.data.transitions import TransitionBatch
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.policy import Draws, Policy


@dataclass(frozen=True, kw_only=True)
class TD3BCConfig(AgentConfig):
    """Settings of TD3+BC.

    Args:
        alpha: weight of the value against imitation.
        target_noise: standard deviation of the noise on target actions, normalised.
        noise_clip: its bound.
        policy_every: steps of the critics for one of the policy.
    """

    alpha: float = 2.5
    target_noise: float = 0.2
    noise_clip: float = 0.5
    policy_every: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0 or self.target_noise < 0 or self.noise_clip < 0 or self.policy_every < 1:
            raise ConfigError(
                f"agent: expected alpha, target_noise and noise_clip >= 0 and policy_every >= 1, but got {self.alpha}, "
                f"{self.target_noise}, {self.noise_clip} and {self.policy_every}"
            )


@register_agent("td3_bc")
class TD3BC(Agent):
    """TD3+BC; see the module."""

    config: TD3BCConfig
    config_class = TD3BCConfig

    def __init__(self, policy: Policy, config: TD3BCConfig) -> None:
        if policy.sample_noise_shape != (0,) or policy.reach is None:
            raise ConfigError(
                f"agent=td3_bc trains a policy that draws nothing and keeps its actions within bounds, but got "
                f"'{policy.kind}'; use policy=mlp policy.squash=true"
            )
        super().__init__(policy, config)
        self.model.register_buffer("steps", torch.zeros((), dtype=torch.long, device=policy.device))

    @property
    def _moves_policy(self) -> bool:
        """Whether this step is one of the policy's; counted from 1, as theirs."""
        return (int(self.model.get_buffer("steps")) + 1) % self.config.policy_every == 0

    def draw(self, batch: Batch, rows: int, generator: torch.Generator) -> Draws:
        """Returns the noise of target actions (B, A)."""
        size = self.policy.horizons.action_horizon * self.policy.action_spec.size
        return {"target": torch.randn((rows, size), generator=generator, device=generator.device)}

    def loss(self, batch: TransitionBatch, draws: Draws) -> Tensor:
        """Returns the loss of the critics, and of the policy when it is its turn (B,)."""
        policy, known = self.policy, self.policy.normalized(batch.obs)
        data = self.executed_actions(batch)
        loss = self.critic_loss(known, data, self.target(batch, draws["target"]))
        if self._moves_policy:
            action = policy.executed(policy.sample(policy.encoded(known), data[:, :0]))
            with torch.no_grad():
                features = self.critic.encoder(known)
            with frozen(self.critic):
                value = self.critic.single_value(0, features, action)  # (B,)
            imitation = (action - data).square().mean(1)
            self.note(imitation_loss=imitation, q_policy=value)
            loss = loss + imitation - self.config.alpha * value / value.detach().abs().mean()
        return loss

    @torch.no_grad()
    def target(self, batch: TransitionBatch, noise: Tensor) -> Tensor:
        """Returns r + discount * min Q' at the slow policy's next action with clipped noise (B,)."""
        average, config = self.average, self.config
        known = average.normalized(batch.next_obs)
        action = average.executed(average.sample(average.encoded(known), noise[:, :0]))
        shift = (config.target_noise * noise).clamp(-config.noise_clip, config.noise_clip)
        bound = average.reach or 1.0
        value: Tensor = self.slow_critic(known, (action + shift).clamp(-bound, bound))
        return batch.reward + batch.discount * value.amin(0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Moves the slow critic when the policy moved; counts."""
        if self._moves_policy:
            follow(self.slow_critic, self.critic, self.config.target_rate)
        self.model.get_buffer("steps").add_(1)
