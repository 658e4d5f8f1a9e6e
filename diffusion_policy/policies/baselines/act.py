"""ACT, action chunking with transformers (Zhao et al. 2023): a conditional VAE whose decoder answers a whole chunk.

In training an encoder reads the demonstrated chunk and says in a few numbers z which of the ways it went; the decoder
gets z and the observations. Acting takes z = 0, the prior's mean, as published: equal observations, equal actions.
Deviations: padded actions count in the loss, as in all policies here, where the published code masks them; chunks are
executed by the controller, without temporal ensembling.

Letters: B batch, To/Tp obs/pred horizon, Da numbers in an action, Dc condition size of a step, D embedding size, Z
numbers of z.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.transformer import transformer_encoder
from diffusion_policy.policies.kinds import register_policy
from diffusion_policy.policies.policy import Draws, Policy
from diffusion_policy.policies.policy_config import PolicyConfig


@dataclass(frozen=True)
class ActConfig:
    """The transformers, and how much z may say; defaults as published, in smaller layers.

    Args:
        latent_dim: Z.
        kl_weight: of the divergence of z from its prior.
        embed_dim: D; 512 is published.
        feedforward_dim: 3200 is published.
        heads: of the attention.
        encoder_layers: of both encoders.
        decoder_layers: one is what the published code uses of its seven.
        dropout: in all of them.
    """

    latent_dim: int = 32
    kl_weight: float = 10.0
    embed_dim: int = 256
    feedforward_dim: int = 1024
    heads: int = 8
    encoder_layers: int = 4
    decoder_layers: int = 1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.latent_dim, self.feedforward_dim, self.heads, self.encoder_layers, self.decoder_layers)
        if min(sizes) < 1 or self.embed_dim % max(1, self.heads) or self.embed_dim < 1:
            raise ConfigError(f"policy: expected sizes >= 1 and embed_dim a multiple of heads, but got {self}")
        if not 0 <= self.dropout < 1 or self.kl_weight < 0:
            raise ConfigError(
                f"policy: expected dropout in [0, 1) and kl_weight >= 0, but got {self.dropout} and {self.kl_weight}"
            )


@dataclass(frozen=True, kw_only=True)
class ActPolicyConfig(PolicyConfig):
    """A chunking transformer."""

    policy: ActConfig = field(default_factory=ActConfig)


@register_policy("act")
class ActPolicy(Policy):
    """Behaviour cloning by a conditional VAE over chunks; see `Policy`."""

    config: ActPolicyConfig
    config_class = ActPolicyConfig
    per_step = True

    def __init__(self, config: ActPolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__(config, obs_spec, action_spec)
        own, horizons, D = config.policy, config.horizons, config.policy.embed_dim
        options: dict[str, Any] = {"heads": own.heads, "feedforward_dim": own.feedforward_dim, "dropout": own.dropout}
        self.obs_embedding = nn.Linear(self.encoder.cond_dim, D)
        self.action_embedding = nn.Linear(action_spec.size, D)
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, D))  # the token whose output becomes z
        self.posterior_place = nn.Parameter(0.02 * torch.randn(1, 1 + horizons.obs_horizon + horizons.pred_horizon, D))
        self.posterior = transformer_encoder(D, own.encoder_layers, **options)
        self.posterior_head = nn.Linear(D, 2 * own.latent_dim)
        self.latent_embedding = nn.Linear(own.latent_dim, D)
        self.memory_place = nn.Parameter(0.02 * torch.randn(1, 1 + horizons.obs_horizon, D))
        self.memory = transformer_encoder(D, own.encoder_layers, **options)
        self.queries = nn.Parameter(0.02 * torch.randn(1, horizons.pred_horizon, D))
        layer = nn.TransformerDecoderLayer(D, own.heads, own.feedforward_dim, own.dropout, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, own.decoder_layers, nn.LayerNorm(D))
        self.head = nn.Linear(D, action_spec.size)

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        """Returns the noise of z (B, Z)."""
        shape = (rows, self.config.policy.latent_dim)
        return {"latent": torch.randn(shape, generator=generator, device=generator.device)}

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns absolute error plus weighed divergence (B,) (Zhao et al. 2023, section IV-B and appendix C)."""
        cond, x = self.condition(obs), self.action_normalizer.normalize(action)
        mean, log_var = self._posterior(cond, x)
        z = mean + (0.5 * log_var).exp() * draws["latent"]
        error = (self._decode(cond, z) - x).abs().flatten(1).mean(1)
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)  # KL from the standard normal
        return error + self.config.policy.kl_weight * divergence

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns the chunk (B, Tp, Da) of z = 0 for cond (B, To, Dc); `noise` has no say."""
        return self._decode(cond, cond.new_zeros(len(cond), self.config.policy.latent_dim))

    def _posterior(self, cond: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log-variance of z, (B, Z) each, after a demonstrated chunk x (B, Tp, Da)."""
        summary = self.summary.expand(len(x), -1, -1)
        tokens = torch.cat([summary, self.obs_embedding(cond), self.action_embedding(x)], dim=1)
        said = self.posterior(tokens + self.posterior_place)[:, 0]
        mean, log_var = self.posterior_head(said).float().chunk(2, dim=-1)
        return mean, log_var

    def _decode(self, cond: Tensor, z: Tensor) -> Tensor:
        tokens = torch.cat([self.latent_embedding(z)[:, None], self.obs_embedding(cond)], dim=1)  # (B, 1 + To, D)
        memory = self.memory(tokens + self.memory_place)
        return self.head(self.decoder(self.queries.expand(len(z), -1, -1), memory))  # type: ignore[no-any-return]
