"""The network of SynthER for flat vectors (Lu et al. 2023, appendix B, and their code): residual blocks of one layer.

`mlp_denoiser.ResidualMlpDenoiser` is another one: layer norm, four times as wide inside, and a condition.

Letters: B batch, D numbers of a vector, E size of the embeddings, H width.
"""

import copy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from diffusion_policy.models.embedding import FourierEmbedding
from diffusion_policy.models.mlp import check_sizes, mlp


@dataclass(frozen=True)
class ResidualNetConfig:
    """Sizes; the published ones, of which `width` is 2048 for some data sets.

    Args:
        width: H.
        blocks: how many.
        embed_dim: E.
        fourier_dim: random Fourier features of the time.
    """

    width: int = 1024
    blocks: int = 6
    embed_dim: int = 128
    fourier_dim: int = 16

    def __post_init__(self) -> None:
        check_sizes("model.width, blocks and embed_dim", (self.width, self.blocks, self.embed_dim))


class _Block(nn.Module):
    """x + W relu(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x.relu())  # type: ignore[no-any-return]


class ResidualNet(nn.Module):
    """f(x (B, D), t (B,)) -> (B, D): embeddings of both are added, and go through the blocks.

    Args:
        size: D.
        config: sizes.
    """

    def __init__(self, size: int, config: ResidualNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResidualNetConfig()
        dim = config.embed_dim
        self.embed = nn.Linear(size, dim)
        self.time = nn.Sequential(
            FourierEmbedding(config.fourier_dim), *mlp((config.fourier_dim + 1, dim, dim), activation=nn.SiLU)
        )
        self.body = nn.Sequential(nn.Linear(dim, config.width), *(_Block(config.width) for _ in range(config.blocks)))
        self.out = nn.Linear(config.width, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns (B, D) for x (B, D), t (B,)."""
        inner = self.body[0].weight.dtype
        h = self.body((self.embed(x) + self.time(t)).to(inner))
        return self.out(h.to(self.out.weight.dtype).relu())  # type: ignore[no-any-return]

    def with_blocks_in(self, dtype: torch.dtype) -> Self:
        """Returns a copy for inference whose blocks, nearly all of the work, compute in another precision."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        made.body.to(dtype)
        return made
