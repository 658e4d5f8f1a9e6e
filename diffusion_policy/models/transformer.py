"""The transformer denoiser of Chi et al. 2023 (DP-T): action tokens attend to themselves and to time and observations.

Letters: B batch, Tp pred_horizon, To observed steps, Da action size, Dc condition size, D embedding size.
"""

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.denoiser import register_backbone
from diffusion_policy.models.embedding import SinusoidalEmbedding

_INIT_STD = 0.02


@register_backbone("transformer")
class ConditionalTransformer(nn.Module):
    """Denoises action chunks, a token for each action; obeys `Denoiser`.

    The memory holds the timestep and then the observed steps, oldest first; action i (its first belongs to the oldest
    observation) sees actions up to itself and, with `causal`, observations up to its own time.

    Args:
        action_dim: Da.
        cond_dim: Dc, `obs_tokens` equal parts.
        pred_horizon: Tp.
        obs_tokens: parts of the condition, tokens of the memory: To, where the encoder has no layers over all steps.
        embed_dim: D.
        layers: of the decoder.
        heads: of the attention; divides D.
        dropout: in attention and feed-forward layers.
        causal: masks the future, as published.

    Raises:
        ConfigError: a size does not fit.
    """

    def __init__(
        self,
        *,
        action_dim: int,
        cond_dim: int,
        pred_horizon: int,
        obs_tokens: int = 1,
        embed_dim: int = 256,
        layers: int = 8,
        heads: int = 4,
        dropout: float = 0.3,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if obs_tokens < 1 or cond_dim % obs_tokens:
            raise ConfigError(
                f"denoiser.obs_tokens must divide the condition's {cond_dim} numbers, but got {obs_tokens}; leave "
                f"encoder.hidden_dims empty and take obs_horizon"
            )
        if heads < 1 or layers < 1 or embed_dim % (2 * heads):
            raise ConfigError(
                f"denoiser: expected layers >= 1 and embed_dim a multiple of 2 * heads, but got layers {layers}, "
                f"embed_dim {embed_dim} and heads {heads}"
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"denoiser.dropout must be in [0, 1), but got {dropout}")
        self.obs_tokens = obs_tokens
        self.action_embedding = nn.Linear(action_dim, embed_dim)
        self.obs_embedding = nn.Linear(cond_dim // obs_tokens, embed_dim)
        self.time_embedding = SinusoidalEmbedding(embed_dim)
        self.action_place = nn.Parameter(torch.zeros(1, pred_horizon, embed_dim))
        self.memory_place = nn.Parameter(torch.zeros(1, 1 + obs_tokens, embed_dim))
        self.memory = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), nn.Mish(), nn.Linear(4 * embed_dim, embed_dim))
        layer = nn.TransformerDecoderLayer(
            embed_dim, heads, 4 * embed_dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, action_dim)
        self.apply(_initialise)
        for place in (self.action_place, self.memory_place):
            nn.init.normal_(place, std=_INIT_STD)
        action_time, obs_time = torch.arange(pred_horizon)[:, None], torch.arange(-1, obs_tokens)  # -1: the timestep
        self.register_buffer("_self_mask", action_time < action_time.T if causal else None, persistent=False)
        self.register_buffer("_memory_mask", obs_time > action_time if causal else None, persistent=False)

    def undecayed(self) -> set[str]:
        """Returns all but the matrices."""
        return undecayed(self)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, Tp, Da) for x (B, Tp, Da), t (B,), cond (B, Dc)."""
        obs = self.obs_embedding(cond.reshape(len(cond), self.obs_tokens, -1))  # (B, To, D)
        time = self.time_embedding(t)[:, None].to(obs.dtype)  # (B, 1, D)
        memory = self.memory(torch.cat([time, obs], dim=1) + self.memory_place)
        tokens = self.action_embedding(x) + self.action_place
        h = self.decoder(tokens, memory, tgt_mask=self._self_mask, memory_mask=self._memory_mask)
        return self.head(self.norm(h))  # type: ignore[no-any-return]


def transformer_encoder(
    dim: int,
    layers: int,
    *,
    heads: int,
    dropout: float,
    feedforward_dim: int | None = None,
    norm_first: bool = False,
) -> nn.TransformerEncoder:
    """Returns self-attention layers (B, N, dim) -> (B, N, dim).

    Args:
        dim: of a token.
        layers: how many.
        heads: of the attention.
        dropout: in attention and feed-forward layers.
        feedforward_dim: 4 * dim when None.
        norm_first: layers as in GPT: norms before, GELU; else as published first: norms after, ReLU.
    """
    layer = nn.TransformerEncoderLayer(
        dim,
        heads,
        feedforward_dim or 4 * dim,
        dropout,
        activation="gelu" if norm_first else "relu",
        batch_first=True,
        norm_first=norm_first,
    )
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(dim) if norm_first else None, enable_nested_tensor=False)


def undecayed(module: nn.Module) -> set[str]:
    """Returns the names of parameters that weight decay leaves alone: all but the matrices of linear layers.

    As in the published training of transformers (Chi et al. 2023): norms, biases and places are no features.
    """
    decayed = {
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        for own, parameter in part.named_parameters(recurse=False)
        if parameter.ndim == 2 and isinstance(part, nn.Linear | nn.MultiheadAttention)
    }
    return {name for name, _ in module.named_parameters()} - decayed


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=_INIT_STD)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=_INIT_STD)
        nn.init.zeros_(module.in_proj_bias)
