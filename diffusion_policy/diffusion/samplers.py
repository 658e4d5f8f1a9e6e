"""From noise to samples: each sampler is one page, a table of coefficients and the loop that uses it.

A table holds plain Python numbers, made once. So a loop needs no buffer and no device, every step is a handful of
tensor operations, and torch.export sees constants. DDPM and DDIM compute their coefficients in float32 and apply
them in the order of diffusers: results are equal bit for bit. (Fusing a step into two multiply-adds would save two
of seven operations and the equality; exactness was chosen.)

With x_t = a x0 + s eps, lambda = ln(a/s), h = lambda' - lambda, and primes for where a step leads:
every loop begins at `x` = standard normal and ends at the clean level, a' = 1, s' = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusion_policy.diffusion.process import Denoise, DiffusionProcess, Parameterization, VarianceType
from diffusion_policy.diffusion.schedule import Grid, make_timesteps
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.registry import Registry

Table = tuple[tuple[float, ...], ...]  # one row of coefficients a step


@dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    Args:
        name: ddim, ddpm, dpmpp_2m, heun, or diffusers.
        num_inference_steps: N; one network evaluation a step (heun: two, but for the last).
        eta: DDIM's noise, 0 (deterministic) to 1 (as much as DDPM).
        timestep_spacing: trailing, leading or linspace; see `schedule.make_timesteps`.
        scheduler: for `diffusers`: a scheduler class of that library, e.g. "UniPCMultistepScheduler".
        scheduler_options: for `diffusers`: further arguments of that class, e.g. {solver_order: 3}.
    """

    name: str = "ddim"
    num_inference_steps: int = 10
    eta: float = 0.0
    timestep_spacing: str = "trailing"
    scheduler: str = ""
    scheduler_options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta must be in [0, 1], but got {self.eta!r}")
        if self.eta and self.name != "ddim":
            raise ConfigError(f"eta is DDIM's setting; sampler {self.name} has none, but got eta={self.eta!r}")


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


class Solver(Protocol):
    """What a registered sampler builds: a loop that is ready to run."""

    @property
    def num_noises(self) -> int:
        """How many tensors of `step_noise` a run uses."""
        ...

    def __call__(self, denoise: Denoise, noise: Tensor, step_noise: Tensor) -> Tensor:
        """Returns samples (B, *E) from noise (B, *E) and step_noise (num_noises, B, *E)."""
        ...


@dataclass(frozen=True)
class _Loop:
    """One of this module's loops with its table. Its fields are data and a module's function: it can be pickled."""

    loop: Callable[[Denoise, Parameterization, Tensor, tuple[int, ...], Table, Tensor], Tensor]
    meaning: Parameterization
    timesteps: tuple[int, ...]
    table: Table
    num_noises: int = 0

    def __call__(self, denoise: Denoise, noise: Tensor, step_noise: Tensor) -> Tensor:
        return self.loop(denoise, self.meaning, noise, self.timesteps, self.table, step_noise)


SAMPLERS: Registry[Callable[[DiffusionProcess, SamplerConfig], Solver]] = Registry("sampler")


def _timesteps(process: DiffusionProcess, config: SamplerConfig) -> tuple[int, ...]:
    return make_timesteps(process.config.num_train_timesteps, config.num_inference_steps, config.timestep_spacing)


def _count(table: Table) -> int:
    """Returns the steps that add noise: sigma is a table's last column."""
    return sum(row[-1] > 0 for row in table)


@SAMPLERS.register("ddpm")
def _build_ddpm(process: DiffusionProcess, config: SamplerConfig) -> Solver:
    timesteps = _timesteps(process, config)
    table = ddpm_table(Grid.chain(process.config.alpha_bar(), timesteps), process.config.variance_type)
    return _Loop(ddpm, process.parameterization, timesteps, table, _count(table))


@SAMPLERS.register("ddim")
def _build_ddim(process: DiffusionProcess, config: SamplerConfig) -> Solver:
    timesteps = _timesteps(process, config)
    table = ddim_table(Grid.strided(process.config.alpha_bar(), timesteps), config.eta)
    return _Loop(ddim, process.parameterization, timesteps, table, _count(table))


@SAMPLERS.register("dpmpp_2m")
def _build_dpmpp_2m(process: DiffusionProcess, config: SamplerConfig) -> Solver:
    timesteps = _timesteps(process, config)
    return _Loop(
        dpmpp_2m, process.parameterization, timesteps, dpmpp_2m_table(Grid.chain(process.config.alpha_bar(), timesteps))
    )


@SAMPLERS.register("heun")
def _build_heun(process: DiffusionProcess, config: SamplerConfig) -> Solver:
    timesteps = _timesteps(process, config)
    return _Loop(
        heun, process.parameterization, timesteps, heun_table(Grid.chain(process.config.alpha_bar(), timesteps))
    )


@SAMPLERS.register("diffusers")
def _build_diffusers(process: DiffusionProcess, config: SamplerConfig) -> Solver:
    from diffusion_policy.diffusion.bridge import DiffusersSampler  # lazily: a robot has no diffusers

    return DiffusersSampler(process, config.scheduler, config.num_inference_steps, config.scheduler_options)


class Sampler:
    """A sampler for one process, ready to run. Stateless, without tensors: any device, any dtype, any thread.

    Args:
        process: whose schedule and parameterisation hold.
        config: which sampler, how many steps.

    Attributes:
        num_noises: S, standard-normal tensors a run needs besides the initial one: 0 for the deterministic samplers,
            N - 1 for DDPM and DDIM with eta > 0 (the step that ends clean adds none; see `Grid.strided` for DDIM
            with an N that does not divide T, which may need N).

    Raises:
        UnknownNameError: no such sampler.
        ConfigError: the settings contradict the process.
    """

    def __init__(self, process: DiffusionProcess, config: SamplerConfig | None = None) -> None:
        self.config = config or SamplerConfig()
        self._solve = SAMPLERS.get(self.config.name)(process, self.config)
        self.num_noises = self._solve.num_noises

    def __call__(self, denoise: Denoise, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Returns samples (B, *E).

        Args:
            denoise: (x_t (B, *E), t (B,) long) -> (B, *E).
            noise: (B, *E) standard normal, where the run begins.
            step_noise: (num_noises, B, *E) standard normal; may be None where num_noises is 0.

        Raises:
            ObservationError: step_noise is missing or has another shape.
        """
        expected = (self.num_noises, *noise.shape)
        if step_noise is None and self.num_noises == 0:
            step_noise = noise.new_empty(expected)
        if step_noise is None or step_noise.shape != expected:
            got = "none" if step_noise is None else tuple(step_noise.shape)
            raise ObservationError(
                f"sampler {self.config.name} needs step_noise of shape (num_noises, *noise.shape) = {expected}, but "
                f"got {got}; draw it with torch.randn"
            )
        return self._solve(denoise, noise, step_noise)

    def split(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns noise and step_noise of a call, from the noise of each row in one piece.

        Args:
            noise: (B, *E), or (B, 1 + num_noises, *E) where steps add noise.
        """
        if not self.num_noises:
            return noise, None
        return noise[:, 0], noise[:, 1:].movedim(1, 0)

    def visited(self) -> tuple[int, ...]:
        """Returns the timesteps at which a run evaluates the network, in that order."""
        seen: list[int] = []

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            seen.append(int(t[0]))
            return torch.zeros_like(x)

        self(denoise, torch.zeros(1, 1), torch.zeros(self.num_noises, 1, 1))
        return tuple(seen)
