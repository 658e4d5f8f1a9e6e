"""Diffusion-QL (Wang, Hunt and Zhou 2022, arXiv 2208.06193): a diffusion policy that imitates and climbs its critic.

The loss of the policy (equation 3) is L_d + L_q: the denoising loss on the data's actions, and minus alpha times the
value of an action that the policy samples, with the gradient through all of its denoising steps. The scale of Q
differs from task to task, so alpha = eta / E|Q| (section 3.2), with Q of the *other* critic than the one that is
climbed, chosen anew at each step (their code). Critics learn by clipped double Q-learning with the averaged policy's
actions (equation 4), or the maximum over ten of them (`max_q_backup`, for AntMaze).

Where this differs from their code, knowingly:
- Policy and critic take their steps at the same time, from the same weights; there the critic moves first.
- The average follows the policy at every step with the loop's law (up to `ema_max`, 0.999 in the presets: the same
  memory as theirs, 0.995 every fifth step), and also in the first 1,000 steps, where theirs stands still.
- Their schedule of learning rates never moves (it is stepped once an evaluation); rates are constant here.

`one_step` replaces the chain by one estimate of x0 from the noised action of the data: Kang et al. 2023 (arXiv
2305.20081, "EDP", section 4.1), at a fraction of the cost.

Letters: B batch, C candidates, K critics, Tp pred_horizon, Da action size, A numbers in the executed actions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.agents.agent import Agent, AgentConfig, frozen, register_agent
from diffusion_policy.data.dataset import Batch
from diffusion_policy.data.transitions import TransitionBatch
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.selection import Selector, SelectorConfig

_BACKUP = 10  # actions of which max_q_backup takes the best


@dataclass(frozen=True, kw_only=True)
class DiffusionQLConfig(AgentConfig):
    """Settings of Diffusion-QL.

    Args:
        eta: weight of the value against imitation; 0 is behaviour cloning.
        max_q_backup: targets take the best of ten next actions, for each critic, before the smaller critic counts.
        one_step: EDP's estimate instead of the whole chain.
        num_inference_steps: denoising steps of the samples that training takes; None for the policy's own. Most of the
            cost of a step, where the denoiser is large.
        num_candidates: samples of a prediction, at deployment.
        temperature: of the softmax over their values.
    """

    eta: float = 1.0
    max_q_backup: bool = False
    one_step: bool = False
    num_inference_steps: int | None = None
    num_candidates: int = 50
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta < 0:
            raise ConfigError(f"agent.eta must be 0 or more, but got {self.eta}")
        SelectorConfig(self.num_candidates, self.temperature)  # refuses what is out of range


@register_agent("diffusion_ql")
class DiffusionQL(Agent):
    """Diffusion-QL; see the module."""

    config: DiffusionQLConfig
    policy: DiffusionPolicy
    config_class = DiffusionQLConfig

    def __init__(self, policy: Policy, config: DiffusionQLConfig) -> None:
        if not isinstance(policy, DiffusionPolicy):
            raise ConfigError(f"agent=diffusion_ql trains policy=diffusion, but got policy '{policy.kind}'")
        super().__init__(policy, config)
        self._acting = self._average_acting = self._as_in_training(policy)

    def use_average(self, average: Policy) -> None:
        """See `Objective`."""
        super().use_average(average)
        self._average_acting = self._as_in_training(average)

    def _as_in_training(self, policy: Policy) -> Policy:
        steps = self.config.num_inference_steps
        return policy if steps is None else policy.with_sampler(num_inference_steps=steps)

    def draw(self, batch: Batch, rows: int, generator: torch.Generator) -> Draws:
        """Returns noise of imitation and of both samples, timesteps, and which critic is climbed."""
        on: dict[str, Any] = {"generator": generator, "device": generator.device}
        shape = self._acting.sample_noise_shape
        backups = (_BACKUP,) if self.config.max_q_backup else ()
        draws = {**self.policy.draw(rows, generator), "next": torch.randn((rows, *backups, *shape), **on)}
        draws["climbed"] = torch.randint(0, 2, (1,), **on).expand(rows)
        if not self.config.one_step:
            draws["sample"] = torch.randn((rows, *shape), **on)
        return draws

    def loss(self, batch: TransitionBatch, draws: Draws) -> Tensor:
        """Returns L_d + L_q of the policy and the critics' squared errors (B,)."""
        policy = self.policy
        known = policy.normalized(batch.obs)
        cond, x0 = policy.encoded(known), policy.action_normalizer.normalize(batch.action)
        critic_loss = self.critic_loss(known, policy.executed(x0), self.target(batch, draws["next"]))
        noise, t = draws["noise"], draws["t"]
        noisy = policy.process.add_noise(x0, noise, t)
        output = policy.denoiser(noisy, t, cond)
        imitation: Tensor = (output - policy.process.target(x0, noise, t)).square().flatten(1).mean(1)
        if self.config.one_step:
            action = policy.process.clipped_x0(output, noisy, t)
        else:
            action = self._acting.sample(cond, draws["sample"])
        climb = self.climb_loss(known, policy.executed(action), int(draws["climbed"][0]))
        self.note(imitation_loss=imitation, q_loss=climb)
        return imitation + self.config.eta * climb + critic_loss

    def climb_loss(self, obs: dict[str, Tensor], action: Tensor, climbed: int) -> Tensor:
        """Returns -Q_i / E|Q_j| (B,): it and its gradient stay as they are when both critics are scaled.

        Args:
            obs: normalised.
            action: (B, A) of the policy, normalised; gradients flow into it.
            climbed: i, 0 or 1; j is the other one.
        """
        critic = self.critic
        with torch.no_grad():
            features = critic.encoder(obs)
            scale = critic.single_value(1 - climbed, features, action).abs().mean()
        with frozen(critic):
            return -critic.single_value(climbed, features, action) / scale

    @torch.no_grad()
    def target(self, batch: TransitionBatch, noise: Tensor) -> Tensor:
        """Returns r + discount * min over critics of Q' at the averaged policy's next action (B,).

        Args:
            batch: transitions.
            noise: what `draw` returns as "next": of one action, or (B, 10, ...) of ten with `max_q_backup`.
        """
        average, known = self.average, self.average.normalized(batch.next_obs)
        cond, features = average.encoded(known), self.slow_critic.encoder(known)
        count = noise.shape[1] if self.config.max_q_backup else 1
        if count > 1:
            cond, features = (each.repeat_interleave(count, dim=0) for each in (cond, features))
            noise = noise.flatten(0, 1)
        action = average.executed(self._average_acting.sample(cond, noise))
        value: Tensor = self.slow_critic.value(features, action)  # (K, B * count)
        best = value.reshape(len(value), -1, count).amax(2)  # of each critic; then the smaller critic
        return batch.reward + batch.discount * best.amin(0)

    def deployed(self, average: Policy) -> Policy:
        """Returns the average with the slow critic as judge of its candidates."""
        config = SelectorConfig(self.config.num_candidates, self.config.temperature)
        return average.with_selector(Selector(self.slow_critic, config).eval())
