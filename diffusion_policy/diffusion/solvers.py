"""From noise to samples: each solver is one page, a table of coefficients and the loop that uses it.

A table holds plain Python numbers, made once. So a loop needs no buffer and no device, every step is a handful of
tensor operations, and torch.export sees constants. DDPM and DDIM compute their coefficients in float32 and apply
them in the order of diffusers: results are equal bit for bit. (Fusing a step into two multiply-adds would save two
of seven operations and the equality; exactness was chosen.)

With x_t = a x0 + s eps, lambda = ln(a/s), h = lambda' - lambda, and primes for where a step leads:
every loop begins at `x` = standard normal and ends at the clean level, a' = 1, s' = 0.
"""

import torch
from torch import Tensor

from diffusion_policy.diffusion.process import Denoise, Parameterization, VarianceType
from diffusion_policy.diffusion.schedule import Grid

Table = tuple[tuple[float, ...], ...]
"""One row of coefficients a step."""


def _rows(*columns: Tensor) -> Table:
    return tuple(zip(*(column.tolist() for column in columns), strict=True))


def _time(x: Tensor, timestep: int) -> Tensor:
    """Returns `timestep` for every row of x: (B,) long."""
    return torch.full((x.shape[0],), timestep, dtype=torch.long, device=x.device)


def ddpm_table(grid: Grid, variance_type: VarianceType = "fixed_small") -> Table:
    """Returns (a, s, weight of x0, weight of x_t, sigma) a step.

    Ho et al. 2020, equation 7, with beta taken between the levels visited. The step that ends clean adds no noise
    (algorithm 2, line 3). diffusers adds some whenever that step does not start at timestep 0, i.e. for trailing
    spacing with N < T: 1e-10 with fixed_small, which changes nothing, but sqrt(beta) with fixed_large.
    """
    ab, ab_next = grid.alpha_bar, grid.alpha_bar_next
    alpha = ab / ab_next
    beta = 1 - alpha
    weight_x0 = ab_next.sqrt() * beta / (1 - ab)
    weight_x = alpha.sqrt() * (1 - ab_next) / (1 - ab)
    posterior = (1 - ab_next) / (1 - ab) * beta
    match variance_type:
        case "fixed_small":
            sigma = posterior.sqrt()
        case "fixed_small_log":
            sigma = (0.5 * posterior.log()).exp()
        case "fixed_large":
            sigma = beta.sqrt()
    sigma = torch.where(ab_next == 1, 0.0, sigma)
    return _rows(ab.sqrt(), (1 - ab).sqrt(), weight_x0, weight_x, sigma)


def ddpm(
    denoise: Denoise, meaning: Parameterization, x: Tensor, timesteps: tuple[int, ...], table: Table, step_noise: Tensor
) -> Tensor:
    """Returns samples by ancestral sampling (Ho et al. 2020, algorithm 2, with x0 clipped)."""
    draw = iter(step_noise)
    for t, (a, s, weight_x0, weight_x, sigma) in zip(timesteps, table, strict=True):
        x0 = meaning.clipped_x0(denoise(x, _time(x, t)), x, a, s)
        x = weight_x0 * x0 + weight_x * x
        if sigma > 0:
            x = x + sigma * next(draw)
    return x


def ddim_table(grid: Grid, eta: float = 0.0) -> Table:
    """Returns (a, s, a', weight of eps, sigma) a step (Song et al. 2021, equations 12 and 16)."""
    ab, ab_next = grid.alpha_bar, grid.alpha_bar_next
    variance = (1 - ab_next) / (1 - ab) * (1 - ab / ab_next)
    sigma = eta * variance.sqrt()
    direction = (1 - ab_next - sigma**2).sqrt()
    return _rows(ab.sqrt(), (1 - ab).sqrt(), ab_next.sqrt(), direction, sigma)


def ddim(
    denoise: Denoise, meaning: Parameterization, x: Tensor, timesteps: tuple[int, ...], table: Table, step_noise: Tensor
) -> Tensor:
    """Returns samples by DDIM (Song et al. 2021, equation 12).

    Clipping changes x0 only: eps stays what the network said, as in diffusers' default and in the checkpoints that
    were tuned with it. Re-deriving eps from the clipped x0 gives other samples.
    """
    draw = iter(step_noise)
    for t, (a, s, a_next, direction, sigma) in zip(timesteps, table, strict=True):
        output = denoise(x, _time(x, t))
        x = a_next * meaning.clipped_x0(output, x, a, s) + direction * meaning.to_eps(output, x, a, s)
        if sigma > 0:
            x = x + sigma * next(draw)
    return x


def _exponential(grid: Grid) -> tuple[Tensor, ...]:
    """Returns a, s, s'/s and a'(1 - exp(-h)), float64 (N,): the exact solution where x0 is constant over a step.

    x' = (s'/s) x + a'(1 - exp(-h)) x0, Lu et al. 2022 (DPM-Solver++), equation 8. exp(-h) = a s' / (s a') needs no
    logarithm, so the last step, h = infinity, is the same formula: x' = x0.
    """
    ab, ab_next = grid.alpha_bar.double(), grid.alpha_bar_next.double()
    a, s, a_next, s_next = ab.sqrt(), (1 - ab).sqrt(), ab_next.sqrt(), (1 - ab_next).sqrt()
    return a, s, s_next / s, a_next - a * s_next / s


def dpmpp_2m_table(grid: Grid) -> Table:
    """Returns (a, s, weight of x, weight of x0, extrapolation 1/2r) a step; r = h_before / h.

    First order where there is nothing to extrapolate from (first step) or to (last step, h infinite).
    """
    a, s, weight_x, weight_x0 = _exponential(grid)
    log_snr = (a / s).log()
    h = torch.diff(log_snr)  # (N-1,) of all steps but the last
    extrapolation = torch.zeros_like(a)
    extrapolation[1:-1] = h[1:] / (2 * h[:-1])
    return _rows(a, s, weight_x, weight_x0, extrapolation)


def dpmpp_2m(
    denoise: Denoise, meaning: Parameterization, x: Tensor, timesteps: tuple[int, ...], table: Table, step_noise: Tensor
) -> Tensor:
    """Returns samples by DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, one evaluation a step."""
    before = None
    for t, (a, s, weight_x, weight_x0, extrapolation) in zip(timesteps, table, strict=True):
        x0 = meaning.clipped_x0(denoise(x, _time(x, t)), x, a, s)
        ahead = x0 if before is None else x0 + extrapolation * (x0 - before)
        x = weight_x * x + weight_x0 * ahead
        before = x0
    return x


def heun_table(grid: Grid) -> Table:
    """Returns (a, s, weight of x, weight of x0) a step."""
    return _rows(*_exponential(grid))


def heun(
    denoise: Denoise, meaning: Parameterization, x: Tensor, timesteps: tuple[int, ...], table: Table, step_noise: Tensor
) -> Tensor:
    """Returns samples by Heun's method (Karras et al. 2022, algorithm 1): second order, 2N - 1 evaluations.

    The trapezoid averages x0 at both ends of a step, in log-SNR time (Lu et al. 2022, algorithm 1, with r = 1).
    Karras averages the slope over s/a, whose first step here would be from about 2000 to 10 and blow up; averaging
    x0 keeps every iterate a convex combination, at the same order.
    """
    for i, (a, s, weight_x, weight_x0) in enumerate(table):
        x0 = meaning.clipped_x0(denoise(x, _time(x, timesteps[i])), x, a, s)
        if i + 1 < len(table):
            a_next, s_next, *_ = table[i + 1]
            guess = weight_x * x + weight_x0 * x0
            output = denoise(guess, _time(x, timesteps[i + 1]))
            x0 = 0.5 * (x0 + meaning.clipped_x0(output, guess, a_next, s_next))
        x = weight_x * x + weight_x0 * x0
    return x
