"""Flow matching with straight paths (Lipman et al. 2023; Liu et al. 2023, "rectified flow"): an ODE from noise to data.

The network learns the velocity of x_t = (1 - t) noise + t x1, t in [0, 1]; sampling follows it by Euler's rule. Like
`process`, it knows no network and all randomness is passed in.

Letters: x1 (B, *E) clean samples, t (B,) float.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, *E), t (B,)) -> (B, *E)."""


def interpolate(x1: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Returns x_t (B, *E) (Liu et al. 2023, equation 1)."""
    share = _broadcast(t, x1)
    return (1 - share) * noise + share * x1


def flow_loss(velocity: Velocity, x1: Tensor, *, noise: Tensor, t: Tensor) -> Tensor:
    """Returns the mean squared error of the velocity, (B,) (Liu et al. 2023, equation 1).

    Args:
        velocity: what is learned.
        x1: (B, *E).
        noise: standard normal (B, *E).
        t: (B,) in [0, 1].
    """
    return (velocity(interpolate(x1, noise, t), t) - (x1 - noise)).square().flatten(1).mean(1)


def integrate(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Returns samples (B, *E): Euler's rule from t = 0 to 1 in equal steps; differentiable.

    Args:
        velocity: the field.
        noise: standard normal (B, *E), where the paths begin.
        steps: how many evaluations.
    """
    x = noise
    for step in range(steps):
        t = torch.full((len(x),), step / steps, device=x.device, dtype=x.dtype)
        x = x + velocity(x, t) / steps
    return x


def _broadcast(t: Tensor, like: Tensor) -> Tensor:
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))
