"""BeT, the behaviour transformer (Shafiullah et al. 2022): which of K clusters of actions, and how far from its centre.

A causal transformer reads the last observations (10, as published) and says at each, for every cluster of the
demonstrated actions, how likely it is (focal loss, Lin et al. 2017) and the offset from its centre (squared error, of
the cluster that was right). Acting draws a cluster and adds its offset.

Letters: B batch, To/Tp obs/pred horizon (equal here), Da numbers in an action, Dc condition size of a step, K clusters,
D embedding size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.clusters import kmeans, nearest
from diffusion_policy.models.mixture import choose
from diffusion_policy.models.transformer import transformer_encoder, undecayed
from diffusion_policy.policies.baselines.stepwise import check_stepwise
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig


@dataclass(frozen=True)
class BetConfig:
    """The transformer, its clusters, and how their two losses are weighed.

    Args:
        clusters: K.
        embed_dim: D.
        layers: of the transformer.
        heads: of its attention.
        dropout: in it.
        focal_gamma: how little clusters count that are already likely; 0 is the cross-entropy.
        offset_weight: of the squared error of the offset.
    """

    clusters: int = 64
    embed_dim: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    focal_gamma: float = 2.0
    offset_weight: float = 100.0

    def __post_init__(self) -> None:
        if min(self.clusters, self.layers, self.heads) < 1 or self.embed_dim % max(1, self.heads):
            raise ConfigError(
                "policy: expected clusters, layers and heads >= 1 and embed_dim a multiple of heads, but got "
                f"{self.clusters}, {self.layers}, {self.heads} and {self.embed_dim}"
            )
        if not 0 <= self.dropout < 1 or self.focal_gamma < 0 or self.offset_weight < 0:
            raise ConfigError(
                "policy: expected dropout in [0, 1), focal_gamma >= 0 and offset_weight >= 0, but got "
                f"{self.dropout}, {self.focal_gamma} and {self.offset_weight}"
            )


@dataclass(frozen=True, kw_only=True)
class BetPolicyConfig(PolicyConfig):
    """A behaviour transformer."""

    policy: BetConfig = field(default_factory=BetConfig)


@register_policy("bet")
class BetPolicy(Policy):
    """Behaviour cloning by clusters and offsets; see `Policy`."""

    config: BetPolicyConfig
    config_class = BetPolicyConfig
    per_step = True
    centres: Tensor

    def __init__(self, config: BetPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        check_stepwise("bet", config.horizons)
        super().__init__(config, obs_spec, action_spec)
        own, To = config.policy, config.horizons.obs_horizon
        self.register_buffer("centres", torch.zeros(own.clusters, action_spec.size))
        self.embedding = nn.Linear(self.encoder.cond_dim, own.embed_dim)
        self.place = nn.Parameter(0.02 * torch.randn(1, To, own.embed_dim))
        self.transformer = transformer_encoder(
            own.embed_dim, own.layers, heads=own.heads, dropout=own.dropout, norm_first=True
        )
        self.head = nn.Linear(own.embed_dim, own.clusters * (1 + action_spec.size))
        self.register_buffer("_mask", torch.ones(To, To).triu(1).bool(), persistent=False)

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """(Tp, 1): which cluster, for each step."""
        return (self.horizons.pred_horizon, 1)

    def undecayed(self) -> set[str]:
        """Returns all but the matrices."""
        return undecayed(self)

    def fit_normalizers(self, obs: Mapping[str, Tensor], action: Tensor) -> None:
        """Sets the normalisers, and the clusters of the normalised actions (N, Da)."""
        super().fit_normalizers(obs, action)
        self.centres.copy_(kmeans(self.action_normalizer.normalize(action), self.config.policy.clusters))

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns focal loss plus weighed squared error (B,), means over the steps (Shafiullah et al., section 3.2)."""
        logits, offsets = self._answer(self.condition(obs))
        x = self.action_normalizer.normalize(action)  # (B, Tp, Da)
        right = nearest(x, self.centres)  # (B, Tp)
        log_p = logits.log_softmax(-1).gather(-1, right[..., None]).squeeze(-1)
        focal = -(1 - log_p.exp()).pow(self.config.policy.focal_gamma) * log_p
        offset = _of(offsets, right)
        error = (offset - (x - self.centres[right])).square().mean(-1)
        return (focal + self.config.policy.offset_weight * error).mean(1)

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns an action for each observed step, (B, Tp, Da), of cond (B, To, Dc); the last one is executed."""
        logits, offsets = self._answer(cond)
        chosen = choose(logits, noise).squeeze(-1)
        return self.centres[chosen] + _of(offsets, chosen)

    def _answer(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (B, To, K) and offsets (B, To, K, Da)."""
        h = self.transformer(self.embedding(cond) + self.place, mask=self._mask)
        with torch.autocast(h.device.type, enabled=False):
            out = self.head(h.float())
        K = self.config.policy.clusters
        return out[..., :K], out[..., K:].unflatten(-1, (K, -1))


def _of(offsets: Tensor, cluster: Tensor) -> Tensor:
    """Returns the offsets (B, T, Da) of one cluster (B, T) each."""
    place = cluster[..., None, None].expand(*cluster.shape, 1, offsets.shape[-1])
    return offsets.gather(-2, place).squeeze(-2)
