"""Samples that agree with something known of them: each estimate of x0 is pulled towards it while denoising.

With weights W and known values y, pseudo-inverse guidance (Song et al. 2023, section 3) corrects the score of x_t by
J^T W (y - x0_hat) / r^2, J the derivative of x0_hat by x_t. With x_t = a x0 + s eps, a^2 + s^2 = 1, and their r^2 = s^2
(data of unit variance), the estimate of x0 that this implies is

    x0_hat + (1 / a) J^T W (y - x0_hat).

Where J is a, as for independent Gaussians, this is y, exactly. Elsewhere r^2 models what x_t leaves open: samples
agree closely, and follow less well than the exact conditional would (`tests/diffusion/test_guidance.py` has numbers).
Real-time chunking (Black, Galliker and Levine 2025) guides flows so, with W = 1 for actions that are committed, falling
to 0 beyond them, and with a bound on the factor, which few steps need. What is pulled is the denoiser's answer, so any
sampler will do.

Letters: B batch, E the axes of a sample.
"""

import torch
from torch import Tensor

from diffusion_policy.diffusion.process import Denoise, DiffusionProcess
from diffusion_policy.errors import ConfigError

MAX_GAIN = 5.0
"""Bound on 1 / a: the one that real-time chunking has for its factor."""


def guided(
    process: DiffusionProcess, denoise: Denoise, known: Tensor, weight: Tensor, *, max_gain: float = MAX_GAIN
) -> Denoise:
    """Returns a denoiser whose samples agree with `known` where `weight` is large, and are likely elsewhere.

    Its answers carry no gradient. Each call costs the denoiser a forward and a backward pass.

    Args:
        process: for which the denoiser was trained.
        denoise: (x_t (B, *E), t (B,)) -> (B, *E), differentiable by x_t.
        known: y, (B, *E), finite everywhere.
        weight: W in [0, 1], broadcasts against x_t; 0 leaves free, but for what the rest implies.
        max_gain: bound on 1 / a, at least 1.

    Raises:
        ConfigError: the bound is below 1.
    """
    if not max_gain >= 1:
        raise ConfigError(f"max_gain must be at least 1, which is full agreement, but got {max_gain}")

    def answer(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = process.to_x0(denoise(x, t), x, t)  # (B, *E)
            error = weight * (known - x0.detach())
            (pull,) = torch.autograd.grad(x0, x, error)  # J^T W (y - x0)
        a = process.a[t].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))  # (B, 1, ...)
        gain = (1 / a).clamp(max=max_gain)
        return process.from_x0(x0.detach() + gain * pull, x.detach(), t)

    return answer
