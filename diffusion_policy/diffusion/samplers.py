"""Samplers by name, ready to run: a solver and its table, made for one process and a number of steps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusion_policy.diffusion.process import Denoise, DiffusionProcess, Parameterization
from diffusion_policy.diffusion.schedule import Grid, make_timesteps
from diffusion_policy.diffusion.solvers import (
    Table,
    ddim,
    ddim_table,
    ddpm,
    ddpm_table,
    dpmpp_2m,
    dpmpp_2m_table,
    heun,
    heun_table,
)
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.registry import Registry


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
    """A solver's loop with its table. Its fields are data and a module's function: it can be pickled."""

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
