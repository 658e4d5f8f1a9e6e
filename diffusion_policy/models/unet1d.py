"""The temporal U-Net of Chi et al. 2023 (Diffusion Policy, section IV-A), conditioned by FiLM.

Module names and the two oddities of the published network are kept, so that its weights load:
the skip connection of the finest level is computed but never used (one level fewer goes up than down, the
coarsest two levels feed it), and every level on the way up doubles the steps.

Letters: B batch, T steps (Tp at the input), C channels, Da action size, Dc condition size.
"""

import itertools
from collections.abc import Iterator
from typing import cast

from torch import Tensor, cat, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.conv import Downsample, TemporalConv, TemporalGroupNorm, Upsample
from diffusion_policy.models.denoiser import register_backbone
from diffusion_policy.models.embedding import SinusoidalEmbedding

ACTIVATIONS: dict[str, type[nn.Module]] = {"mish": nn.Mish, "silu": nn.SiLU}


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, activation: (B, T, C_in) -> (B, T, C_out)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, n_groups: int, activation: str = "mish"
    ) -> None:
        super().__init__()
        self.block = nn.Sequential(
            TemporalConv(in_channels, out_channels, kernel_size),
            TemporalGroupNorm(n_groups, out_channels),
            ACTIVATIONS[activation](),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C_out)."""
        return self.block(x)  # type: ignore[no-any-return]


class FiLMResidualBlock(nn.Module):
    """Two convolution blocks with FiLM (Perez et al. 2018) between them and a residual around them.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        cond_dim: size of the condition, the time embedding included.
        kernel_size: of both convolutions.
        n_groups: of both GroupNorms.
        cond_predict_scale: modulate by scale and bias; else by bias only.
        activation: of both convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        kernel_size: int,
        n_groups: int,
        cond_predict_scale: bool,
        activation: str = "mish",
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                ConvBlock(in_channels, out_channels, kernel_size, n_groups, activation),
                ConvBlock(out_channels, out_channels, kernel_size, n_groups, activation),
            ]
        )
        self.cond_predict_scale = cond_predict_scale
        film_channels = 2 * out_channels if cond_predict_scale else out_channels
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, film_channels))
        self.residual_conv = (
            nn.Identity() if in_channels == out_channels else TemporalConv(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, T, C_out) of x (B, T, C_in) under cond (B, cond_dim)."""
        h = self.blocks[0](x)
        film = self.cond_encoder(cond)[:, None]  # (B, 1, 2 C_out or C_out)
        if self.cond_predict_scale:
            scale, bias = film.chunk(2, dim=-1)
            h = scale * h + bias
        else:
            h = h + film
        return self.blocks[1](h) + self.residual_conv(x)  # type: ignore[no-any-return]


class _Level(nn.ModuleList):
    """Two residual blocks and a change of T; a list, because the published weights call its parts 0, 1 and 2."""

    def __init__(self, first: FiLMResidualBlock, second: FiLMResidualBlock, resample: nn.Module) -> None:
        super().__init__([first, second, resample])

    def blocks(self, x: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, T, C_out) of x (B, T, C_in)."""
        return self[1](self[0](x, cond), cond)  # type: ignore[no-any-return]

    def resample(self, x: Tensor) -> Tensor:
        """Returns (B, T', C_out): T halved, doubled, or kept at the coarsest level."""
        return self[2](x)  # type: ignore[no-any-return]


class _Levels(nn.ModuleList):
    """A list of levels, for the type checker."""

    def __iter__(self) -> Iterator[_Level]:
        return cast("Iterator[_Level]", iter(self._modules.values()))


@register_backbone("unet1d")
class ConditionalUnet1D(nn.Module):
    """Denoises action chunks under one condition vector; obeys `Denoiser`.

    Args:
        action_dim: Da.
        cond_dim: Dc.
        pred_horizon: Tp; must be divisible by 2^(levels - 1).
        down_dims: channels of each level; each must be divisible by `n_groups`.
        kernel_size: odd.
        n_groups: groups of each GroupNorm.
        final_n_groups: groups of the GroupNorm before the output; None for `n_groups`. The published network has 8
            there, whatever `n_groups` says.
        embed_dim: size of the timestep embedding.
        cond_predict_scale: FiLM with scale and bias; else bias only.
        activation: of the convolutions, "mish" (the published one) or "silu", which is much cheaper on CPUs.

    Raises:
        ConfigError: a size does not fit.
    """

    def __init__(
        self,
        action_dim: int,
        cond_dim: int,
        pred_horizon: int,
        *,
        down_dims: tuple[int, ...] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        final_n_groups: int | None = None,
        embed_dim: int = 256,
        cond_predict_scale: bool = True,
        activation: str = "mish",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation must be {' or '.join(ACTIVATIONS)}, but got {activation!r}")
        _check_sizes(pred_horizon, down_dims, kernel_size, n_groups, embed_dim)
        self.diffusion_step_encoder = nn.Sequential(
            SinusoidalEmbedding(embed_dim),
            nn.Linear(embed_dim, 4 * embed_dim),
            nn.Mish(),
            nn.Linear(4 * embed_dim, embed_dim),
        )

        def block(c_in: int, c_out: int) -> FiLMResidualBlock:
            return FiLMResidualBlock(
                c_in, c_out, embed_dim + cond_dim, kernel_size, n_groups, cond_predict_scale, activation
            )

        dims = (action_dim, *down_dims)
        levels = list(itertools.pairwise(dims))
        self.down_modules = _Levels(
            _Level(block(a, b), block(b, b), Downsample(b) if depth < len(levels) else nn.Identity())
            for depth, (a, b) in enumerate(levels, start=1)
        )
        self.mid_modules = nn.ModuleList([block(dims[-1], dims[-1]) for _ in range(2)])
        self.up_modules = _Levels(_Level(block(2 * b, a), block(a, a), Upsample(a)) for a, b in reversed(levels[1:]))
        first, last_groups = down_dims[0], n_groups if final_n_groups is None else final_n_groups
        if last_groups < 1 or first % last_groups:
            raise ConfigError(f"final_n_groups must divide down_dims[0] {first}, but got {final_n_groups}")
        self.final_conv = nn.Sequential(
            ConvBlock(first, first, kernel_size, last_groups, activation), TemporalConv(first, action_dim, 1)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, Tp, Da) of the noisy chunk x (B, Tp, Da) at timesteps t (B,) under cond (B, Dc)."""
        cond = cat((self.diffusion_step_encoder(t), cond), dim=-1)
        h = x  # (B, Tp, Da)
        skips: list[Tensor] = []
        for level in self.down_modules:
            h = level.blocks(h, cond)
            skips.append(h)
            h = level.resample(h)
        for middle in self.mid_modules:
            h = middle(h, cond)
        for level in self.up_modules:
            h = level.resample(level.blocks(cat((h, skips.pop()), dim=-1), cond))
        return self.final_conv(h)  # type: ignore[no-any-return]


def _check_sizes(
    pred_horizon: int, down_dims: tuple[int, ...], kernel_size: int, n_groups: int, embed_dim: int
) -> None:
    if n_groups < 1:
        raise ConfigError(f"n_groups must be at least 1, but got {n_groups}")
    if not down_dims or any(d < 1 or d % n_groups for d in down_dims):
        raise ConfigError(f"down_dims must be multiples of n_groups {n_groups}, but got {down_dims}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"kernel_size must be odd, but got {kernel_size}")
    if embed_dim < 4 or embed_dim % 2:
        raise ConfigError(f"embed_dim must be even and at least 4, but got {embed_dim}")
    multiple = 2 ** (len(down_dims) - 1)
    if pred_horizon % multiple:
        raise ConfigError(
            f"pred_horizon must be a multiple of {multiple} (the U-Net halves it {len(down_dims) - 1} times), "
            f"but got {pred_horizon}; use {pred_horizon + multiple - pred_horizon % multiple} or fewer down_dims"
        )
