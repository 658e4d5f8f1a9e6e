"""Denoisers whose right answers are known: a Gaussian mixture's exact posterior mean, and an arbitrary smooth net."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Three Gaussians on the line, widths 0.1: everything about their diffusion is known in closed form."""

    weights: Tensor
    means: Tensor
    std: float = 0.1

    def x0_mean(self, x: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """Returns E[x0 | x_t = x], elementwise, for x (B, *E) and a, s that broadcast against it."""
        a, s = (torch.as_tensor(v, dtype=x.dtype)[..., None] for v in (a, s))
        weights, means, residual = self.weights.to(x), self.means.to(x), x[..., None] - a * self.means.to(x)
        variance = (a * self.std) ** 2 + s**2
        posterior = (weights.log() - 0.5 * residual**2 / variance).softmax(-1)
        return (posterior * (means + a * self.std**2 / variance * residual)).sum(-1)

    def quantiles(self, count: int) -> Tensor:
        """Returns (about) `count` points that stand for the distribution, sorted: no sampling noise."""
        points = []
        for weight, mean in zip(self.weights, self.means, strict=True):
            n = round(count * weight.item())
            points.append(mean + self.std * torch.special.ndtri((torch.arange(n) + 0.5) / n))
        return torch.cat(points).sort().values

    def distance(self, drawn: Tensor) -> float:
        """Returns the Wasserstein-1 distance between samples and the mixture."""
        return (drawn.flatten().sort().values - self.quantiles(drawn.numel())).abs().mean().item()


@pytest.fixture
def mixture() -> Mixture:
    return Mixture(torch.tensor([0.3, 0.3, 0.4]), torch.tensor([-0.8, 0.1, 0.7]))


@pytest.fixture
def smooth_net():
    """A smooth function of x (B, 3, 2) and t whose implied x0 leaves [-1, 1]: clipping matters."""
    weight = torch.tensor([[0.9, -0.4], [0.3, 1.1]])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        time = t.to(x.dtype).reshape(-1, 1, 1) / 100
        return torch.tanh(x @ weight.to(x) + time) + 0.3 * x

    return denoise
