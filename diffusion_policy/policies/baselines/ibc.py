"""IBC, implicit behavioural cloning (Florence et al. 2021): an energy that is lowest at the demonstrated action.

Trained by InfoNCE against uniformly drawn actions; acts by a derivative-free search (their algorithm 1). Settings of
the comparison in Chi et al. 2023. Its training is known to be unsteady: the loss falls while actions get worse. The
search is mode-seeking: its samples are sharper than the energy says, so the energy itself is what a test judges.

Letters: B batch, N negatives, S candidates, To/Ta/Tp obs/action/pred horizon, Da numbers in an action, Dc condition
size, A = Ta * Da numbers of what is executed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.mixture import choose
from diffusion_policy.models.mlp import check_sizes, mlp
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig


@dataclass(frozen=True)
class IbcConfig:
    """The energy network, its training and the search.

    Args:
        hidden_dims: sizes of its layers, with ReLU between them.
        dropout: share of features dropped in training.
        negatives: N, uniform counter-examples a window.
        jitter: standard deviation of noise on the demonstrated action, normalised.
        candidates: S, of the search.
        iterations: of the search.
        search_std: standard deviation of its first moves, normalised; halved at each iteration.
    """

    hidden_dims: tuple[int, ...] = (1024, 1024, 1024, 1024)
    dropout: float = 0.1
    negatives: int = 1024
    jitter: float = 1e-4
    candidates: int = 1024
    iterations: int = 5
    search_std: float = 0.03

    def __post_init__(self) -> None:
        check_sizes("policy.hidden_dims", self.hidden_dims, dropout=self.dropout)
        if min(self.negatives, self.candidates) < 2 or self.iterations < 0 or min(self.jitter, self.search_std) < 0:
            raise ConfigError(
                "policy: expected negatives and candidates >= 2, and iterations, jitter and search_std >= 0, but got "
                f"{self.negatives}, {self.candidates}, {self.iterations}, {self.jitter} and {self.search_std}"
            )


@dataclass(frozen=True, kw_only=True)
class IbcPolicyConfig(PolicyConfig):
    """An implicit policy."""

    policy: IbcConfig = field(default_factory=IbcConfig)


@register_policy("ibc")
class IbcPolicy(Policy):
    """Behaviour cloning by an energy; see `Policy`. Predicts the Ta executed actions; those before are copies."""

    config: IbcPolicyConfig
    config_class = IbcPolicyConfig

    def __init__(self, config: IbcPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__(config, obs_spec, action_spec)
        self._size = config.horizons.action_horizon * action_spec.size  # A
        own = config.policy
        sizes = (self.encoder.cond_dim + self._size, *own.hidden_dims, 1)
        self.network = mlp(sizes, dropout=own.dropout, activation=nn.ReLU)

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """(S, A + iterations * (1 + A)): where candidates begin; then which survives and how it moves."""
        own = self.config.policy
        return (own.candidates, self._size + own.iterations * (1 + self._size))

    @property
    def reach(self) -> float:
        """Candidates stay among normalised actions."""
        return 1.0

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        """Returns negatives (B, N, A), uniform in [-1, 1], and the jitter (B, A)."""
        on: dict[str, Any] = {"generator": generator, "device": generator.device}
        own = self.config.policy
        return {
            "negatives": 2 * torch.rand((rows, own.negatives, self._size), **on) - 1,
            "jitter": own.jitter * torch.randn((rows, self._size), **on),
        }

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns InfoNCE (B,) (Florence et al. 2021, equation 2): the demonstrated action is candidate 0."""
        first, length = self.horizons.start, self.horizons.action_horizon
        x = self.action_normalizer.normalize(action)[:, first : first + length].flatten(1)  # (B, A)
        candidates = torch.cat([(x + draws["jitter"])[:, None], draws["negatives"]], dim=1)  # (B, 1 + N, A)
        return -(-self.energy(self.condition(obs), candidates)).log_softmax(1)[:, 0]

    def energy(self, cond: Tensor, x: Tensor) -> Tensor:
        """Returns the energy (B, S) of normalised actions (B, S, A) under cond (B, Dc); low is likely."""
        repeated = cond[:, None].expand(-1, x.shape[1], -1)
        return self.network(torch.cat([repeated, x], dim=-1)).squeeze(-1).float()  # type: ignore[no-any-return]

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns the candidate of lowest energy as a chunk (B, Tp, Da), for cond (B, Dc)."""
        own, A = self.config.policy, self._size
        parts = torch.split(noise, [A, *[1, A] * own.iterations], dim=-1)
        x = 2 * torch.special.ndtr(parts[0]) - 1  # (B, S, A), uniform in [-1, 1]
        for iteration in range(own.iterations):
            energy = self.energy(cond, x)
            which, move = parts[1 + 2 * iteration : 3 + 2 * iteration]
            survivor = choose(-energy, which.squeeze(-1))  # (B, S)
            x = x.gather(1, survivor[..., None].expand_as(x))
            x = (x + own.search_std * 0.5**iteration * move).clamp(-1, 1)
        best = self.energy(cond, x).argmin(1)  # (B,)
        chunk = x[torch.arange(len(x), device=x.device), best].unflatten(1, (self.horizons.action_horizon, -1))
        return _placed(chunk, self.horizons.start, self.horizons.pred_horizon)


def _placed(chunk: Tensor, start: int, length: int) -> Tensor:
    """Returns (B, Tp, Da): a chunk (B, Ta, Da) in its place; before and after it, its ends are held."""
    place = (torch.arange(length, device=chunk.device) - start).clamp(0, chunk.shape[1] - 1)
    return chunk[:, place]
