"""The diffusion process: noising, what a network is asked to predict, its loss, and drawing samples.

Networks never see the process: `denoise(x_t, t)` is any callable, usually a closure over the condition. All
randomness is passed in, so that one seed gives one result whatever the batch, and everything here exports,
compiles and differentiates.

Letters: x0 (B, *E) clean, x_t = a_t x0 + s_t eps; t (B,), or per token (B, Tp), or any shape that leads x0's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import torch
from torch import Tensor, nn

from diffusion_policy.diffusion.schedule import make_alpha_bar, make_betas
from diffusion_policy.errors import ConfigError

Denoise = Callable[[Tensor, Tensor], Tensor]
PredictionType = Literal["epsilon", "sample", "v_prediction"]
VarianceType = Literal["fixed_small", "fixed_small_log", "fixed_large"]

PREDICTION_TYPES: Final = ("epsilon", "sample", "v_prediction")
VARIANCE_TYPES: Final = ("fixed_small", "fixed_small_log", "fixed_large")


@dataclass(frozen=True)
class DiffusionConfig:
    """Names and meanings as in diffusers; the defaults are Diffusion Policy's (Chi et al. 2023, appendix).

    Args:
        num_train_timesteps: T.
        beta_schedule: linear, scaled_linear, squaredcos_cap_v2, sigmoid or vp.
        beta_start: first beta of the schedules that have one.
        beta_end: last beta of the schedules that have one.
        prediction_type: what the network's output means: the noise (epsilon), x0 (sample), or
            v = a eps - s x0 (v_prediction; Salimans and Ho 2022, section 4).
        clip_sample: whether samplers clamp every estimate of x0; right for data in [-range, range].
        clip_sample_range: the bound.
        variance_type: of DDPM's noise: the posterior's variance (fixed_small, and fixed_small_log, which rounds
            otherwise) or beta (fixed_large); Ho et al. 2020, section 3.2.
    """

    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: PredictionType = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    variance_type: VarianceType = "fixed_small"

    def __post_init__(self) -> None:
        for name, known in (("prediction_type", PREDICTION_TYPES), ("variance_type", VARIANCE_TYPES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, but got {getattr(self, name)!r}")
        if not self.clip_sample_range > 0:
            raise ConfigError(f"clip_sample_range must be positive, but got {self.clip_sample_range!r}")

    def betas(self) -> Tensor:
        """Returns the schedule, float32 (T,) on the CPU."""
        return make_betas(self.beta_schedule, self.num_train_timesteps, self.beta_start, self.beta_end)

    def alpha_bar(self) -> Tensor:
        """Returns a^2, float32 (T,) on the CPU."""
        return make_alpha_bar(self.betas())


@dataclass(frozen=True)
class Parameterization:
    """What a network's output means; a and s are numbers, or tensors that broadcast against x.

    Args:
        prediction_type: see `DiffusionConfig`.
        clip: bound on estimates of x0, or None.
    """

    prediction_type: PredictionType
    clip: float | None = None

    def target(self, x0: Tensor, eps: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """Returns what the network should output where x_t = a x0 + s eps."""
        match self.prediction_type:
            case "epsilon":
                return eps
            case "sample":
                return x0
            case "v_prediction":
                return a * eps - s * x0

    def to_x0(self, output: Tensor, x_t: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """Returns the estimate of x0 that `output` implies, not clipped."""
        match self.prediction_type:
            case "epsilon":
                return (x_t - s * output) / a
            case "sample":
                return output
            case "v_prediction":
                return a * x_t - s * output

    def to_eps(self, output: Tensor, x_t: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """Returns the estimate of the noise that `output` implies."""
        match self.prediction_type:
            case "epsilon":
                return output
            case "sample":
                return (x_t - a * output) / s
            case "v_prediction":
                return a * output + s * x_t

    def from_x0(self, x0: Tensor, x_t: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """Returns the output that implies an estimate of x0: `to_x0` backwards."""
        match self.prediction_type:
            case "epsilon":
                return (x_t - a * x0) / s
            case "sample":
                return x0
            case "v_prediction":
                return (a * x_t - x0) / s

    def clipped_x0(self, output: Tensor, x_t: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
        """Returns the estimate of x0 that samplers use."""
        x0 = self.to_x0(output, x_t, a, s)
        return x0 if self.clip is None else x0.clamp(-self.clip, self.clip)


class SampleLoop(Protocol):
    """Anything that turns noise (B, *E) into samples; see `samplers.Sampler`."""

    def __call__(self, denoise: Denoise, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Returns samples (B, *E)."""
        ...


class DiffusionProcess(nn.Module):
    """A variance-preserving process over T discrete timesteps.

    Its tables are non-persistent buffers: they follow the module's device, and checkpoints hold only what was learned.

    Args:
        config: schedule and parameterisation.

    Attributes:
        alpha_bar: (T,) float32, a^2.
        a: (T,) float32, signal's share of x_t.
        s: (T,) float32, noise's share of x_t.
    """

    alpha_bar: Tensor
    a: Tensor
    s: Tensor

    def __init__(self, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiffusionConfig()
        self.parameterization = Parameterization(
            config.prediction_type, config.clip_sample_range if config.clip_sample else None
        )
        alpha_bar = config.alpha_bar()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        self.register_buffer("a", alpha_bar.sqrt(), persistent=False)
        self.register_buffer("s", (1 - alpha_bar).sqrt(), persistent=False)

    def _shares(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a_t and s_t, shaped to broadcast against `like`: t's axes lead, the others become 1."""
        shape = t.shape + (1,) * (like.ndim - t.ndim)
        return self.a[t].to(like.dtype).reshape(shape), self.s[t].to(like.dtype).reshape(shape)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Returns x_t (B, *E) (Ho et al. 2020, equation 4).

        Args:
            x0: (B, *E) clean samples.
            eps: (B, *E) standard normal.
            t: (B,) long, or with more leading axes of x0 for noise levels per token.
        """
        a, s = self._shares(t, x0)
        return a * x0 + s * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Returns what the network should output at x_t, (B, *E)."""
        return self.parameterization.target(x0, eps, *self._shares(t, x0))

    def to_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the estimate of x0 that a network's output implies, not clipped, (B, *E)."""
        return self.parameterization.to_x0(output, x_t, *self._shares(t, x_t))

    def from_x0(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the output of a network that implies an estimate of x0, (B, *E)."""
        return self.parameterization.from_x0(x0, x_t, *self._shares(t, x_t))

    def clipped_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the estimate of x0 as samplers use it, (B, *E)."""
        return self.parameterization.clipped_x0(output, x_t, *self._shares(t, x_t))

    def to_eps(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns the estimate of the noise that a network's output implies, (B, *E)."""
        return self.parameterization.to_eps(output, x_t, *self._shares(t, x_t))

    def sample_timesteps(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns t (batch,) long, uniform over 0..T-1, on the process's device.

        Drawn on the generator's device (the CPU without one), so that a CPU generator gives the same on any device.
        """
        device = generator.device if generator is not None else torch.device("cpu")
        t = torch.randint(0, self.config.num_train_timesteps, (batch,), generator=generator, device=device)
        return t.to(self.a.device)

    def loss(
        self,
        denoise: Denoise,
        x0: Tensor,
        *,
        noise: Tensor,
        t: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        reduction: Literal["mean", "none"] = "mean",
    ) -> Tensor:
        """Returns the mean squared error of the network's prediction (Ho et al. 2020, equation 14).

        Args:
            denoise: (x_t (B, *E), t) -> (B, *E).
            x0: (B, *E) clean samples.
            noise: (B, *E) standard normal.
            t: (B,) long, or per token.
            weight: (B,) factor per sample (RWR, AWR, importance).
            mask: which elements count, with leading axes of x0, e.g. (B, Tp); a sample's error is the mean over its
                kept elements, 0 where it keeps none.
            reduction: "mean" -> scalar, the mean of "none" -> (B,).

        Raises:
            ConfigError: unknown reduction.
        """
        if reduction not in ("mean", "none"):
            raise ConfigError(f"reduction must be mean or none, but got {reduction!r}")
        error = (denoise(self.add_noise(x0, noise, t), t) - self.target(x0, noise, t)).square()
        if mask is None:
            per_sample = error.flatten(1).mean(1)  # (B,)
        else:
            kept = mask.to(error.dtype).reshape(mask.shape + (1,) * (x0.ndim - mask.ndim)).expand_as(error)
            per_sample = (error * kept).flatten(1).sum(1) / kept.flatten(1).sum(1).clamp(min=1)
        if weight is not None:
            per_sample = weight * per_sample
        return per_sample.mean() if reduction == "mean" else per_sample

    def sample(
        self, denoise: Denoise, noise: Tensor, sampler: SampleLoop, *, step_noise: Tensor | None = None
    ) -> Tensor:
        """Returns samples (B, *E); gradients flow through the whole run unless the caller disables them.

        Args:
            denoise: (x_t (B, *E), t (B,)) -> (B, *E).
            noise: (B, *E) standard normal, where the run begins.
            sampler: made for this process.
            step_noise: (sampler.num_noises, B, *E) standard normal; None where the sampler needs none.
        """
        return sampler(denoise, noise, step_noise)
