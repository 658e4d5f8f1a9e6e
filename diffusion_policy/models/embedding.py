"""Embeddings of scalars."""

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """Embeds a scalar, e.g. the diffusion timestep, as sines and cosines of geometric frequencies.

    Vaswani et al. 2017, section 3.5, in the layout of Ho et al. 2020: all sines first, then all cosines.

    Args:
        dim: size of the embedding, even and at least 4.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        frequencies = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Returns the embedding (B, dim) of t (B,)."""
        phase = t[:, None].to(self.frequencies.dtype) * self.frequencies[None, :]
        return torch.cat((phase.sin(), phase.cos()), dim=-1)
