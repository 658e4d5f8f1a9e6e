"""Denoisers without convolutions, for short chunks: the networks of diffusion policies in offline RL.

Letters: B batch, Tp pred_horizon, Da action size, Dc condition size, H width.
"""

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.activations import Mish
from diffusion_policy.models.denoiser import register_backbone
from diffusion_policy.models.embedding import SinusoidalEmbedding
from diffusion_policy.models.mlp import check_sizes, mlp


def _time_embedding(dim: int) -> nn.Sequential:
    """Returns what embeds t (B,) as (B, dim)."""
    if dim < 4 or dim % 2:
        raise ConfigError(f"denoiser.time_dim must be even and at least 4, but got {dim}")
    return nn.Sequential(SinusoidalEmbedding(dim), *mlp((dim, 2 * dim, dim)))


@register_backbone("mlp")
class MlpDenoiser(nn.Module):
    """Linear layers with Mish over [chunk, time, condition] (Wang, Hunt and Zhou 2022, appendix B).

    Args:
        action_dim: Da.
        cond_dim: Dc.
        pred_horizon: Tp.
        hidden_dims: sizes of the layers; the published network has three of 256.
        time_dim: of the time's embedding.
    """

    def __init__(
        self,
        action_dim: int,
        cond_dim: int,
        pred_horizon: int,
        hidden_dims: tuple[int, ...] = (256, 256, 256),
        time_dim: int = 16,
    ) -> None:
        super().__init__()
        check_sizes("denoiser.hidden_dims", hidden_dims)
        self._chunk = (pred_horizon, action_dim)
        self.time = _time_embedding(time_dim)
        numbers = pred_horizon * action_dim
        self.network = mlp((numbers + time_dim + cond_dim, *hidden_dims, numbers), activation=Mish)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, Tp, Da) for x (B, Tp, Da), t (B,), cond (B, Dc)."""
        out: Tensor = self.network(torch.cat((x.flatten(1), self.time(t), cond), dim=1))
        return out.reshape(-1, *self._chunk)


class _ResidualBlock(nn.Module):
    """x + W2 relu(W1 layer_norm(dropout(x))), W1 four times as wide (Hansen-Estruch et al. 2023, appendix)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


@register_backbone("residual_mlp")
class ResidualMlpDenoiser(nn.Module):
    """Residual blocks with layer norm: IDQL's network (Hansen-Estruch et al. 2023).

    Args:
        action_dim: Da.
        cond_dim: Dc.
        pred_horizon: Tp.
        width: H.
        blocks: how many.
        dropout: share of features dropped in training, before each block.
        time_dim: of the time's embedding; the source learns Fourier features, these are fixed.
    """

    def __init__(
        self,
        action_dim: int,
        cond_dim: int,
        pred_horizon: int,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.1,
        time_dim: int = 64,
    ) -> None:
        super().__init__()
        check_sizes("denoiser.width and blocks", (width, blocks), dropout=dropout)
        self._chunk = (pred_horizon, action_dim)
        self.time = _time_embedding(time_dim)
        numbers = pred_horizon * action_dim
        self.layers = nn.Sequential(
            nn.Linear(numbers + time_dim + cond_dim, width),
            *(_ResidualBlock(width, dropout) for _ in range(blocks)),
            nn.ReLU(),
            nn.Linear(width, numbers),
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, Tp, Da) for x (B, Tp, Da), t (B,), cond (B, Dc)."""
        out: Tensor = self.layers(torch.cat((x.flatten(1), self.time(t), cond), dim=1))
        return out.reshape(-1, *self._chunk)
