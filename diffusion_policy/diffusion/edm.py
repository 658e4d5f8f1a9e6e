"""EDM: diffusion over continuous noise levels, with a network whose inputs and targets have unit variance.

Karras, Aittala, Aila and Laine 2022 (arXiv 2206.00364): x = x0 + sigma eps, the preconditioned denoiser of table 1 and
equation 7, its loss (equation 8), the noise levels of equation 5 and the stochastic sampler (algorithm 2), which is the
deterministic one of Heun's method where nothing is churned. The settings are those of SynthER (Lu et al. 2023), which
are the source's, with whitened data and so sigma_data = 1.

Like `process`, it knows no network and all randomness is passed in: a network is f(x (B, *E), c_noise (B,)), and never
sees the process. Coefficients are computed in float64 and rounded once, to the state's precision.

Where the numbers of an event have different deviations, each has its own coefficients: sigma_data is then (*E). That is
the table's derivation for each number, and the noise is the same for all.

Letters: x0 (B, *E) clean, sigma (B,) standard deviation of the noise; N steps of a sampler.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_policy.errors import ConfigError

Network = Callable[[Tensor, Tensor], Tensor]
"""(x (B, *E), c_noise (B,)) -> (B, *E)."""
SigmaData = float | Tensor
"""Standard deviation of the data: one for all numbers, or (*E)."""
Denoised = Callable[[Tensor, Tensor], Tensor]
"""(x (B, *E), sigma (B,) float64) -> the estimate of E[x0 | x], (B, *E)."""

_LARGEST_CHURN = math.sqrt(2.0) - 1  # of the noise that is there (algorithm 2): never more than doubles its variance


@dataclass(frozen=True)
class EdmConfig:
    """Noise levels in training and in sampling.

    Args:
        sigma_data: standard deviation of the data; 1 where they are whitened.
        log_sigma_mean: of ln sigma in training, which is normal.
        log_sigma_std: likewise.
        sigma_min: last noise level of a sampler before 0.
        sigma_max: its first.
        rho: how much more densely small levels lie.
    """

    sigma_data: float = 1.0
    log_sigma_mean: float = -1.2
    log_sigma_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max and self.sigma_data > 0 and self.log_sigma_std > 0):
            raise ConfigError(
                f"edm: expected 0 < sigma_min < sigma_max, sigma_data > 0 and log_sigma_std > 0, but got "
                f"{self.sigma_min}, {self.sigma_max}, {self.sigma_data} and {self.log_sigma_std}"
            )
        if not self.rho > 0:
            raise ConfigError(f"edm.rho must be positive, but got {self.rho}")

    def training_sigma(self, normal: Tensor) -> Tensor:
        """Returns noise levels (B,) float64 of standard normal numbers (B,): ln sigma ~ N(mean, std^2) (table 1)."""
        return torch.exp(self.log_sigma_mean + self.log_sigma_std * normal.to(_wide(normal.device)))

    def levels(self, steps: int) -> list[float]:
        """Returns the N + 1 noise levels of a sampler, from sigma_max to sigma_min and then 0 (equation 5)."""
        if steps < 1:
            raise ConfigError(f"expected at least 1 step of the sampler, but got {steps}")
        first, last = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        shares = [i / (steps - 1) if steps > 1 else 0.0 for i in range(steps)]
        return [(first + share * (last - first)) ** self.rho for share in shares] + [0.0]


@dataclass(frozen=True)
class Churn:
    """Fresh noise in the sampler (algorithm 2): it corrects what earlier steps did wrong.

    Args:
        amount: S_churn, spread over the steps; 0 is the deterministic sampler.
        sigma_min: S_tmin, below which nothing is churned.
        sigma_max: S_tmax, above which nothing is.
        noise: S_noise, standard deviation of the fresh noise.
    """

    amount: float = 80.0
    sigma_min: float = 0.05
    sigma_max: float = 50.0
    noise: float = 1.003

    def __post_init__(self) -> None:
        if self.amount < 0 or self.noise < 0 or not 0 <= self.sigma_min <= self.sigma_max:
            raise ConfigError(
                f"churn: expected amount >= 0, noise >= 0 and 0 <= sigma_min <= sigma_max, but got {self.amount}, "
                f"{self.noise}, {self.sigma_min} and {self.sigma_max}"
            )

    def share(self, sigma: float, steps: int) -> float:
        """Returns gamma: by which share of sigma the noise is raised before a step."""
        if not self.sigma_min <= sigma <= self.sigma_max:
            return 0.0
        return min(self.amount / steps, _LARGEST_CHURN)


STILL = Churn(amount=0.0)
"""No churn: the deterministic sampler."""


class Preconditioning(NamedTuple):
    """The coefficients of equation 7, each (B,) float64, or (B, *E) where sigma_data is (*E); `noise` is (B,)."""

    skip: Tensor
    out: Tensor
    scale_in: Tensor
    noise: Tensor


def preconditioning(sigma: Tensor, sigma_data: SigmaData = 1.0) -> Preconditioning:
    """Returns what a network is given and how its answer counts at noise levels sigma (B,) (table 1)."""
    sigma, level, data = _levels(sigma, sigma_data)
    total = (level.square() + data**2).sqrt()
    return Preconditioning(
        skip=(data / total) ** 2, out=level * data / total, scale_in=1 / total, noise=sigma.log() / 4
    )


def _levels(sigma: Tensor, sigma_data: SigmaData) -> tuple[Tensor, Tensor, SigmaData]:
    """Returns sigma (B,), the same shaped to broadcast against sigma_data, and that: in the coefficients' precision."""
    sigma = sigma.to(_wide(sigma.device))
    if not isinstance(sigma_data, Tensor):
        return sigma, sigma, sigma_data
    return sigma, sigma.reshape(-1, *(1,) * sigma_data.ndim), sigma_data.to(sigma)


def denoised(network: Network, x: Tensor, sigma: Tensor, sigma_data: SigmaData = 1.0) -> Tensor:
    """Returns the estimate of x0, (B, *E) (equation 7).

    Args:
        network: sees x at unit variance, and c_noise.
        x: (B, *E) noisy.
        sigma: (B,), float64 for exact coefficients.
        sigma_data: of the data.
    """
    c = preconditioning(sigma, sigma_data)
    output = network(_over(c.scale_in, x) * x, c.noise.to(x.dtype))
    return _over(c.skip, x) * x + _over(c.out, x) * output


def edm_loss(network: Network, x0: Tensor, *, noise: Tensor, sigma: Tensor, sigma_data: SigmaData = 1.0) -> Tensor:
    """Returns the weighted squared error of the denoiser, (B,), a mean over the event (equation 8).

    The weight of table 1 is 1 / c_out^2, so that the network's own error counts: of F against (x0 - c_skip x) / c_out.

    Args:
        network: what is learned.
        x0: (B, *E).
        noise: standard normal (B, *E).
        sigma: (B,); see `EdmConfig.training_sigma`.
        sigma_data: of the data.
    """
    c = preconditioning(sigma, sigma_data)
    x = x0 + _over(sigma, x0) * noise
    # (x0 - c_skip x) / c_out without the difference of nearly equal numbers at small sigma
    _, level, data = _levels(sigma, sigma_data)
    total = (level.square() + data**2).sqrt()
    target = _over(level / (data * total), x0) * x0 - _over(data / total, x0) * noise
    output = network(_over(c.scale_in, x) * x, c.noise.to(x.dtype))
    return (output - target).square().flatten(1).mean(1)


def heun(
    denoise: Denoised,
    noise: Tensor,
    levels: list[float],
    churn: Churn = STILL,
    fresh: Tensor | torch.Generator | None = None,
) -> Tensor:
    """Returns samples (B, *E) by algorithm 2 of the source: 2 N - 1 evaluations.

    Args:
        denoise: the estimate of x0.
        noise: standard normal (B, *E), where the run begins.
        levels: N + 1 noise levels, falling to 0; see `EdmConfig.levels`.
        churn: fresh noise before each step; none is the deterministic sampler of second order.
        fresh: standard normal (N, B, *E), or where to draw it from; only where something is churned.

    Raises:
        ConfigError: something is churned, and `fresh` is missing.
    """
    if churn.amount > 0 and fresh is None:
        raise ConfigError("churn needs fresh noise: pass it, or a generator, or use no churn")
    x, steps = levels[0] * noise, len(levels) - 1
    for i, (level, following) in enumerate(pairwise(levels)):
        gamma = churn.share(level, steps)
        raised = level * (1 + gamma)
        if gamma > 0:
            x = x + math.sqrt(raised**2 - level**2) * churn.noise * _normal(fresh, i, x)
        slope = (x - denoise(x, _at(raised, x))) / raised
        ahead = x + (following - raised) * slope
        if following > 0:  # the correction needs a slope at the end, which there is none of at 0
            second = (ahead - denoise(ahead, _at(following, x))) / following
            ahead = x + (following - raised) * (slope + second) / 2
        x = ahead
    return x


def _normal(fresh: Tensor | torch.Generator | None, step: int, like: Tensor) -> Tensor:
    if isinstance(fresh, Tensor):
        return fresh[step]
    device = fresh.device if fresh is not None else like.device
    return torch.randn(like.shape, generator=fresh, device=device, dtype=like.dtype).to(like.device)


def _at(sigma: float, like: Tensor) -> Tensor:
    return torch.full((len(like),), sigma, dtype=_wide(like.device), device=like.device)


def _wide(device: torch.device) -> torch.dtype:
    """Returns the precision of coefficients; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _over(coefficient: Tensor, like: Tensor) -> Tensor:
    """Returns (B,) or (B, *E) numbers in the state's precision, shaped to broadcast against it."""
    return coefficient.to(like.dtype).reshape(coefficient.shape + (1,) * (like.ndim - coefficient.ndim))
