"""Samples that agree with something known of them: each estimate of x0 is pulled towards it while denoising.

With weights W and known values y, pseudo-inverse guidance (Song et al. 2023, section 3) corrects the score of x_t by
J^T W (y - x0_hat) / r^2, J the derivative of x0_hat by x_t and r^2 the variance that x_t leaves to x0. For data of
standard deviation d, with x_t = a x0 + s eps and a^2 + s^2 = 1, r^2 = d^2 s^2 / (a^2 d^2 + s^2), and the estimate of x0
that this implies is

    x0_hat + g J^T W (y - x0_hat),    g = s^2 / (a r^2) = a + s^2 / (a d^2).

For d = 1, r^2 = s^2 as published, g = 1 / a, and where J is a, as for independent Gaussians, this is y, exactly.
Real-time chunking (Black, Galliker and Levine 2025) guides flows so, with W = 1 for actions that are committed, falling
to 0 beyond them, and with a bound on g, which few steps need. What is pulled is the denoiser's answer, so any sampler
will do.

Two deviations, for policies whose networks let themselves be pulled little (what they see says most of what they do: J
is small): d is 0.3 by default, and the estimate is then moved by its weight the rest of the way to y. With weight 1 it
is y: it will be executed, whatever is predicted, and the following steps denoise what joins it.

Letters: B batch, E the axes of a sample.
"""

import torch
from torch import Tensor

from diffusion_policy.diffusion.process import Denoise, DiffusionProcess
from diffusion_policy.errors import ConfigError

DATA_STD = 0.3
"""Of normalised actions, given what is seen."""
MAX_GAIN = 20.0
"""Bound on g."""


def guided(
    process: DiffusionProcess,
    denoise: Denoise,
    known: Tensor,
    weight: Tensor,
    *,
    data_std: float = DATA_STD,
    max_gain: float = MAX_GAIN,
) -> Denoise:
    """Returns a denoiser whose samples agree with `known` where `weight` is large, and are likely elsewhere.

    Its answers carry no gradient. Each call costs the denoiser a forward and a backward pass.

    Args:
        process: for which the denoiser was trained.
        denoise: (x_t (B, *E), t (B,)) -> (B, *E), differentiable by x_t.
        known: y, (B, *E), finite everywhere.
        weight: W in [0, 1], broadcasts against x_t; 0 leaves free, but for what the rest implies.
        data_std: d, positive; smaller pulls more.
        max_gain: bound on g, at least 1.

    Raises:
        ConfigError: a number is out of range.
    """
    if not max_gain >= 1 or not data_std > 0:
        raise ConfigError(f"expected max_gain >= 1 and data_std > 0, but got {max_gain} and {data_std}")

    def answer(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = process.to_x0(denoise(x, t), x, t)  # (B, *E)
            error = weight * (known - x0.detach())
            (pull,) = torch.autograd.grad(x0, x, error)  # J^T W (y - x0)
        a, s = (
            share[t].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for share in (process.a, process.s)
        )  # (B, 1, ...)
        gain = (a + s**2 / (a * data_std**2)).clamp(max=max_gain)
        pulled = x0.detach() + gain * pull
        return process.from_x0(pulled + weight * (known - pulled), x.detach(), t)

    return answer
