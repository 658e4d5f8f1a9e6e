"""Choosing among several sampled actions by their values, as offline reinforcement learning deploys its policies.

Wang, Hunt and Zhou 2022 sample 50 actions and draw one by the softmax of the smaller Q (inherited from BCQ, in their
code, not in the paper); IDQL takes the best (Hansen-Estruch et al. 2023, algorithm 2), which is temperature 0.

Letters: B batch, C candidates, K critics, Tp pred_horizon, Da action size, A numbers in the executed actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffusion_policy.config import Horizons, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.critic import Critic, CriticConfig
from diffusion_policy.settings import build, plain, section


@dataclass(frozen=True)
class SelectorConfig:
    """How one of several samples is chosen.

    Args:
        num_candidates: C, samples an observation.
        temperature: of the softmax over values; 0 takes the best.
    """

    num_candidates: int = 50
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.num_candidates < 1 or not self.temperature >= 0:
            raise ConfigError(
                f"selector: expected num_candidates >= 1 and temperature >= 0, but got {self.num_candidates} and "
                f"{self.temperature}"
            )


class Samples(Protocol):
    """What a policy does for its selector; see `Policy`."""

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one sample."""
        ...

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns normalised chunks (B, Tp, Da)."""
        ...

    def executed(self, x0: Tensor) -> Tensor:
        """Returns their executed parts (B, A)."""
        ...


class Selector(nn.Module):
    """A critic, and how many samples it judges.

    Args:
        critic: values observations and executed actions, both normalised.
        config: how many, how greedily.
    """

    def __init__(self, critic: Critic, config: SelectorConfig | None = None) -> None:
        super().__init__()
        self.critic = critic
        self.config = config or SelectorConfig()

    def with_candidates(self, count: int) -> "Selector":
        """Returns a selector of so many samples, C, by the same critic."""
        return Selector(self.critic, replace(self.config, num_candidates=count))

    def select(self, policy: Samples, obs: dict[str, Tensor], cond: Tensor, noise: Tensor) -> Tensor:
        """Returns the selected normalised chunks (B, Tp, Da).

        Args:
            policy: samples the candidates.
            obs: {key: (B, To, *shape)}, normalised.
            cond: (B, Dc), or (B, To, Dc), of these.
            noise: (B, C, n + 1): of each candidate's sample, flat, and what the softmax draws with.
        """
        rows, count = noise.shape[:2]
        own = noise[..., :-1].reshape(rows * count, *policy.sample_noise_shape)
        samples = policy.sample(cond.repeat_interleave(count, dim=0), own)  # (B * C, Tp, Da)
        executed = policy.executed(samples).reshape(rows, count, -1)
        chosen = self.choose(obs, executed, noise[..., -1])  # (B,)
        return samples.reshape(rows, count, *samples.shape[1:])[torch.arange(rows, device=chosen.device), chosen]

    def choose(self, obs: dict[str, Tensor], actions: Tensor, luck: Tensor) -> Tensor:
        """Returns which candidate to execute (B,).

        Args:
            obs: {key: (B, To, *shape)}, normalised.
            actions: (B, C, A) executed parts of the candidates, normalised.
            luck: (B, C) standard normal: what the softmax draws with, by Gumbel's trick.
        """
        count = actions.shape[1]
        features = self.critic.encoder(obs).repeat_interleave(count, dim=0)  # (B * C, F)
        value: Tensor = self.critic.value(features, actions.flatten(0, 1)).amin(0).reshape(-1, count)  # (B, C)
        if self.config.temperature == 0:
            return value.argmax(1)
        gumbel = -torch.log(-torch.special.log_ndtr(luck))  # of uniform numbers ndtr(luck)
        return (value / self.config.temperature + gumbel).argmax(1)

    def to_plain(self) -> dict[str, Any]:
        """Returns policy.pt's section `selector`: plain values and tensors."""
        weights = {key: value.detach().cpu().clone() for key, value in self.critic.state_dict().items()}
        critic = {"config": plain(self.critic.config), "count": self.critic.count, "state_dict": weights}
        return {"critic": critic, **plain(self.config)}

    @classmethod
    def from_plain(
        cls, content: Mapping[str, Any], obs_spec: ObsSpec, horizons: Horizons, action_size: int
    ) -> "Selector":
        """Returns what `to_plain` wrote.

        Args:
            content: policy.pt's section.
            obs_spec: of its policy.
            horizons: likewise.
            action_size: Da of its policy.
        """
        said = section(content, "critic")
        config = CriticConfig.from_plain(section(said, "config"))
        size = horizons.action_horizon * action_size
        critic = Critic(obs_spec, horizons.obs_horizon, size, int(said["count"]), config)
        critic.load_state_dict(said["state_dict"])
        own = {name: value for name, value in content.items() if name != "critic"}
        return cls(critic, build(SelectorConfig, own, "selector"))
