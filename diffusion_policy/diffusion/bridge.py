"""Any sampler of the diffusers library, under the call of our own. The only file that imports diffusers, lazily.

What that library is known to get wrong is refused or made impossible here (measured with 0.42.1, T = 100, cosine):
its multistep solvers give NaN or an IndexError at N = T unless spaced `trailing`; `leading` timesteps begin below
T - 1, a silent bias, so `trailing` is forced; schedulers carry state from step to step, so every run has a copy.
"""

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.diffusion.process import Denoise, DiffusionProcess
from diffusion_policy.errors import ConfigError, UnknownNameError


class DiffusersSampler:
    """A scheduler of diffusers as a sampler of one of our processes.

    The process decides betas, parameterisation and clipping. A scheduler that cannot clip is handed network outputs
    whose x0 is clipped. Whether a run ends where it must, and needs noise, is found by trying it on four numbers, here.

    Args:
        process: what to sample.
        scheduler: class name, e.g. "UniPCMultistepScheduler", or an instance, whose other options are taken over.
        num_inference_steps: N.
        options: further arguments of the class, e.g. {"solver_order": 3}.

    Attributes:
        num_noises: noises a run needs besides the initial one; 0 for a deterministic scheduler.

    Raises:
        UnknownNameError: no such scheduler.
        ConfigError: another kind of process; an option that is unknown or that the process decides; an N or a
            combination it cannot do; a scheduler that draws noise and does not let it be passed in.
    """

    def __init__(
        self,
        process: DiffusionProcess,
        scheduler: Any,
        num_inference_steps: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = scheduler if isinstance(scheduler, str) else type(scheduler).__name__
        self._meaning = process.parameterization
        cls = _scheduler_class(self._name)
        known = set(inspect.signature(cls.__init__).parameters) - {"self"}
        decided = _decided_by(process)
        allowed = known - set(decided) - {"beta_schedule", "beta_start", "beta_end"}
        if not isinstance(scheduler, str):
            options = {key: value for key, value in scheduler.config.items() if key in allowed} | dict(options or {})
        _check(self._name, known, allowed, options or {}, process.config.num_train_timesteps, num_inference_steps)
        # trained_betas, not a schedule's name: our `vp` has none there, and most schedulers do not know `sigmoid`
        arguments = {key: value for key, value in decided.items() if key in known} | dict(options or {})
        with _quiet(), self._refusing():
            self._prepared = cls(**arguments)
            self._prepared.set_timesteps(num_inference_steps)
        self._clips_itself = "clip_sample" in known
        self._timesteps = self._whole_timesteps(process.config.num_train_timesteps)
        self._shares = [(float(process.a[t]), float(process.s[t])) for t in self._timesteps]
        self.num_noises = len(self._timesteps) if self._draws_noise(process) else 0
        if self.num_noises and "variance_noise" not in inspect.signature(cls.step).parameters:
            raise ConfigError(
                f"{self._name} draws noise from a generator of its own and takes none from outside, so a run could "
                f"not be repeated row by row; use our ddpm, or ddim with eta > 0"
            )

    def __call__(self, denoise: Denoise, noise: Tensor, step_noise: Tensor) -> Tensor:
        """Returns samples (B, *E) from noise (B, *E) and step_noise (num_noises, B, *E).

        Raises:
            ConfigError: the result is not finite.
        """
        x = self._run(denoise, noise, step_noise if self.num_noises else None)
        if not torch.isfinite(x).all():
            raise ConfigError(
                f"{self._name} returned values that are not finite with {len(self._timesteps)} steps; if the network "
                f"is sound, take fewer steps or our ddim or dpmpp_2m"
            )
        return x

    def _run(self, denoise: Denoise, noise: Tensor, step_noise: Tensor | None) -> Tensor:
        scheduler = copy.deepcopy(self._prepared)  # it counts its steps and keeps past outputs
        meaning = self._meaning
        x = noise * float(scheduler.init_noise_sigma)
        for i, (t, (a, s)) in enumerate(zip(self._timesteps, self._shares, strict=True)):
            told = scheduler.timesteps[i]
            x_t = scheduler.scale_model_input(x, told)
            output = denoise(x_t, torch.full((x.shape[0],), t, dtype=torch.long, device=x.device))
            if meaning.clip is not None and not self._clips_itself:
                x0 = meaning.clipped_x0(output, x_t, a, s)
                output = meaning.target(x0, (x_t - a * x0) / s, a, s)
            extra = {"variance_noise": step_noise[i]} if step_noise is not None else {}
            with _quiet():
                x = scheduler.step(output, told, x, return_dict=False, **extra)[0]
        return x

    def _whole_timesteps(self, T: int) -> tuple[int, ...]:
        """Returns the timesteps the network is told; Euler and its kin hold them as floats."""
        told = [float(t) for t in self._prepared.timesteps]
        if any(t != int(t) for t in told):
            raise ConfigError(
                f"{self._name} visits fractional timesteps, which networks here are not trained on; use one that "
                f"does not interpolate, e.g. UniPCMultistepScheduler or HeunDiscreteScheduler"
            )
        if told[0] != T - 1 or min(told) < 0:
            raise ConfigError(
                f"{self._name} visits timesteps {told[0]:g} to {min(told):g}, expected to begin at {T - 1} and stay "
                f"above -1; change num_inference_steps or the scheduler"
            )
        return tuple(int(t) for t in told)

    def _draws_noise(self, process: DiffusionProcess) -> bool:
        """Returns whether two runs from the same noise differ, after seeing that they end where they must.

        The data of the trial are Gaussian, so its network is exact and the ends are known: 0.2 of the clipping range
        times the noise. diffusers' PNDM, and Heun where nothing clips, end thousands of times further out on cosine
        schedules, without any NaN.
        """
        width = self._meaning.clip or 1.0
        share = 0.2 * width

        def exact(x: Tensor, t: Tensor) -> Tensor:
            a, s = process.a[t, None], process.s[t, None]
            x0 = a * share**2 / (a**2 * share**2 + s**2) * x
            return self._meaning.target(x0, (x - a * x0) / s, a, s)

        ends = []
        for seed in (0, 1):
            with torch.random.fork_rng(devices=[]), torch.no_grad(), self._refusing():
                torch.manual_seed(seed)
                ends.append(self._run(exact, process.a.new_tensor([[-2.0], [-0.3], [0.7], [1.5]]), None))
        if not ends[0].abs().max() < 0.9 * width:  # NaN is not less either
            raise ConfigError(
                f"{self._name} diverges with {len(self._timesteps)} evaluations: from noise within 2 it ends at "
                f"{ends[0].abs().max():.3g} where {2 * share:.3g} is right; take our ddim, dpmpp_2m or heun"
            )
        return not torch.equal(*ends)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turns what diffusers raises for settings it cannot do into our error."""
        try:
            yield
        except (TypeError, ValueError, IndexError, RuntimeError) as error:  # NotImplementedError is a RuntimeError
            raise ConfigError(f"{self._name} cannot sample this process with these settings: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences NumPy's deprecation warnings about code inside diffusers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _decided_by(process: DiffusionProcess) -> dict[str, Any]:
    """Returns the arguments of diffusers' schedulers that describe the process, not the sampling."""
    config = process.config
    return {
        "num_train_timesteps": config.num_train_timesteps,
        "trained_betas": config.betas().tolist(),
        "prediction_type": config.prediction_type,
        "clip_sample": config.clip_sample,
        "clip_sample_range": config.clip_sample_range,
        "variance_type": config.variance_type,
        "timestep_spacing": "trailing",
    }


def _check(name: str, known: set[str], allowed: set[str], options: Mapping[str, Any], T: int, N: int) -> None:
    """Refuses schedulers of other processes, options that are not theirs to set, and N that go wrong."""
    if missing := sorted({"num_train_timesteps", "trained_betas", "prediction_type"} - known):
        raise ConfigError(
            f"{name} samples another kind of process (it has no {', '.join(missing)}); use one for discrete "
            f"variance-preserving diffusion, e.g. UniPCMultistepScheduler"
        )
    if unknown := sorted(set(options) - allowed):
        raise ConfigError(
            f"{name}: cannot set {', '.join(unknown)} (unknown, or decided by the diffusion process and trailing "
            f"spacing); what can be set: {', '.join(sorted(allowed))}"
        )
    longest = T - 1 if "solver_order" in known else T
    if isinstance(N, bool) or not isinstance(N, int) or not 1 <= N <= longest:
        why = ", multistep solvers of diffusers break there" if longest < T else ""
        raise ConfigError(
            f"{name}: num_inference_steps must be in [1, {longest}] (num_train_timesteps {T}{why}), but got {N!r}"
        )


def _scheduler_class(name: str) -> Any:
    library = _diffusers()
    cls = getattr(library, name, None) if name.endswith("Scheduler") else None
    if cls is None:
        known = ", ".join(each.name for each in library.schedulers.KarrasDiffusionSchedulers)
        raise UnknownNameError(f"unknown scheduler '{name}' of diffusers, known among others: {known}")
    return cls


def _diffusers() -> ModuleType:
    try:
        import diffusers
    except ImportError as error:
        raise ConfigError(
            "sampler 'diffusers' needs that library, which is not installed: pip install diffusers, or use our own "
            "samplers: ddim, ddpm, dpmpp_2m, heun"
        ) from error
    return diffusers
