"""How much noise stands at which timestep, and which timesteps a sampler visits.

Pure functions and one frozen record. T is `num_train_timesteps`, N `num_inference_steps`; timestep 0 is the least
noisy one a network sees, T - 1 the noisiest; the clean sample lies beyond 0 and has alpha_bar 1.

Tables are float32, computed with the operations of diffusers (Hugging Face) in their order: the equality is bit for
bit, so that a network trained against either library samples the same with the other. Where diffusers itself
computes in float64 before rounding (`squaredcos_cap_v2`), or has no such schedule (`vp`), so do we.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from diffusion_policy.errors import ConfigError
from diffusion_policy.registry import Registry

TIMESTEP_SPACINGS: Final = ("leading", "trailing", "linspace")

BetaSchedule = Callable[[int, float, float], Tensor]
BETA_SCHEDULES: Registry[BetaSchedule] = Registry("beta_schedule")


@BETA_SCHEDULES.register("linear")
def _linear(T: int, start: float, end: float) -> Tensor:
    """Ho et al. 2020, section 4; meant for T = 1000: with T = 100 the last step is still one third signal."""
    return torch.linspace(start, end, T, dtype=torch.float32, device="cpu")


@BETA_SCHEDULES.register("scaled_linear")
def _scaled_linear(T: int, start: float, end: float) -> Tensor:
    """Rombach et al. 2022: linear in the square root."""
    return torch.linspace(start**0.5, end**0.5, T, dtype=torch.float32, device="cpu") ** 2


@BETA_SCHEDULES.register("squaredcos_cap_v2")
def _squaredcos_cap_v2(T: int, start: float, end: float) -> Tensor:
    """Nichol and Dhariwal 2021, equation 17, capped at 0.999; `start` and `end` play no part."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - alpha_bar((t + 1) / T) / alpha_bar(t / T), 0.999) for t in range(T)]
    return torch.tensor(betas, dtype=torch.float32, device="cpu")


@BETA_SCHEDULES.register("sigmoid")
def _sigmoid(T: int, start: float, end: float) -> Tensor:
    """Xu et al. 2022 (GeoDiff)."""
    return torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float32, device="cpu")) * (end - start) + start


@BETA_SCHEDULES.register("vp")
def _vp(T: int, start: float, end: float) -> Tensor:
    """Xiao et al. 2022, as in Diffusion-QL (Wang et al. 2023, section 4): few steps, the same end for every T.

    The variance-preserving SDE with beta from 0.1 to 10 over unit time; `start` and `end` play no part. The last
    alpha_bar is 0.0064 for every T: the prior is off by a_T = 0.08, by design.
    """
    betas = [-math.expm1(-0.1 / T - 0.5 * 9.9 * (2 * t - 1) / T**2) for t in range(1, T + 1)]
    return torch.tensor(betas, dtype=torch.float32, device="cpu")


def make_betas(beta_schedule: str, num_train_timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """Returns beta_t, the variance added by each of the T noising steps, float32 (T,), in (0, 1).

    Raises:
        ConfigError: T is not positive, or the bounds leave (0, 1).
        UnknownNameError: no such schedule.
    """
    if isinstance(num_train_timesteps, bool) or not isinstance(num_train_timesteps, int) or num_train_timesteps < 1:
        raise ConfigError(f"num_train_timesteps must be a positive whole number, but got {num_train_timesteps!r}")
    if not 0 < beta_start <= beta_end < 1:
        raise ConfigError(f"expected 0 < beta_start <= beta_end < 1, but got {beta_start!r} and {beta_end!r}")
    return BETA_SCHEDULES.get(beta_schedule)(num_train_timesteps, beta_start, beta_end)


def make_alpha_bar(betas: Tensor) -> Tensor:
    """Returns prod_{i <= t} (1 - beta_i): the share of the clean signal's variance in x_t, float32 (T,)."""
    return torch.cumprod(1.0 - betas, dim=0)


def make_timesteps(num_train_timesteps: int, num_inference_steps: int, spacing: str = "trailing") -> tuple[int, ...]:
    """Returns the N timesteps a sampler visits, noisiest first (names of Lin et al. 2024, table 2).

    `trailing` begins at T - 1, where training ends, for every N. `leading` begins at (N - 1) * (T // N): pure noise
    is handed to the network as if some signal were left in it, a silent bias when N is small or T / N is not whole.
    `linspace` visits both ends.

    Equal to diffusers, except that diffusers 0.42's `trailing` appends a (N+1)-th timestep, -1, for some N by float
    round-off (29, 31, 58, 62 and 97 of 100); here there are always N.

    Raises:
        ConfigError: unknown spacing, N outside [1, T], or N = 1 with a spacing that would begin at timestep 0.
    """
    T, N = num_train_timesteps, num_inference_steps
    if spacing not in TIMESTEP_SPACINGS:
        raise ConfigError(f"timestep_spacing must be one of {', '.join(TIMESTEP_SPACINGS)}, but got {spacing!r}")
    if isinstance(N, bool) or not isinstance(N, int) or not 1 <= N <= T:
        raise ConfigError(f"num_inference_steps must be in [1, {T}] (num_train_timesteps), but got {N!r}")
    if N == 1 < T and spacing != "trailing":
        raise ConfigError(f"one inference step with {spacing} spacing would begin at timestep 0; use trailing")
    if spacing == "leading":
        return tuple(i * (T // N) for i in reversed(range(N)))
    if spacing == "linspace":
        return tuple(round(i * ((T - 1) / max(N - 1, 1))) for i in reversed(range(N)))
    stride = T - (T - T / N)  # as numpy.arange rounds it; Python's round is numpy's: halves go to even
    return tuple(round(T - i * stride) - 1 for i in range(N))


@dataclass(frozen=True)
class Grid:
    """The noise levels of one run of a sampler: step i goes from alpha_bar[i] to alpha_bar_next[i].

    Args:
        timesteps: N numbers the network is told, noisiest first.
        alpha_bar: (N,) where each step starts. float32 for a discrete process; a continuous one may give float64.
        alpha_bar_next: (N,) where it leads; 1 is the clean sample.
    """

    timesteps: tuple[int, ...]
    alpha_bar: Tensor
    alpha_bar_next: Tensor

    @classmethod
    def chain(cls, alpha_bar: Tensor, timesteps: tuple[int, ...]) -> "Grid":
        """Returns the grid whose every step leads to where the next one starts, the last to the clean sample.

        Args:
            alpha_bar: (T,) table of the process.
            timesteps: indices into it, noisiest first.
        """
        visited = alpha_bar[list(timesteps)]
        return cls(timesteps, visited, torch.cat([visited[1:], visited.new_ones(1)]))

    @classmethod
    def strided(cls, alpha_bar: Tensor, timesteps: tuple[int, ...]) -> "Grid":
        """Returns the grid of diffusers' DDIM: every step leads T // N timesteps down, wherever the next one starts.

        The same as `chain` for leading and trailing spacing where N divides T. Elsewhere a step may land up to a
        stride off the level the network is then told, and the last one just above clean (13 or 15 of 100). Kept
        because published checkpoints are run this way; on mixtures it was no worse than the chain.
        """
        stride = len(alpha_bar) // len(timesteps)
        landing = [alpha_bar[t - stride] if t >= stride else alpha_bar.new_ones(()) for t in timesteps]
        return cls(timesteps, alpha_bar[list(timesteps)], torch.stack(landing))
