"""Embeddings of scalars."""

import math

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError


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


class FourierEmbedding(nn.Module):
    """Embeds a scalar as itself, sines and cosines of random frequencies (Tancik et al. 2020; as SynthER has it).

    The frequencies are drawn once, standard normal in cycles per unit, and never trained: a buffer, kept with the
    weights.

    Args:
        dim: of the sines and cosines together, even and at least 2.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ConfigError(f"fourier_dim must be even and at least 2, but got {dim}")
        self.register_buffer("frequencies", torch.randn(dim // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Returns the embedding (B, dim + 1) of t (B,)."""
        phase = 2 * math.pi * t[:, None] * self.frequencies
        return torch.cat((t[:, None], phase.sin(), phase.cos()), dim=-1)
