"""One refit: real transitions in, a new model of them, synthetic transitions out, and how like the real ones they are.

No stable-baselines3 here. Letters: N real rows.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from diffusion_policy.augment.augmenter import ROWS
from diffusion_policy.augment.diagnostics import RealRows, fidelity
from diffusion_policy.augment.synther import SamplingConfig, SyntherAugmenter, SyntherConfig
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.residual_net import ResidualNetConfig
from diffusion_policy.settings import plain
from diffusion_policy.training.augmenting.fitting import FitConfig, InMemory
from diffusion_policy.training.hooks import HookConfig, StatelessHook
from diffusion_policy.training.loop import LoopConfig, TrainingLoop
from diffusion_policy.training.optim import OptimConfig

OnProgress = Callable[[str, int, int], None]
"""(what is going on, done, of); what it raises ends the refit."""

_OPTIM = OptimConfig(lr=3e-4, betas=(0.9, 0.99), weight_decay=0.0, warmup_steps=0, grad_clip=1.0)


def _loop(steps: int) -> LoopConfig:
    return LoopConfig(num_grad_steps=steps, batch_size=256, ema_max=0.9995, bf16="auto")


@dataclass(frozen=True)
class RefitConfig:
    """How a model is refitted and drawn from; the defaults are for processors, `PAPER` is the published setting.

    Args:
        samples: synthetic transitions drawn.
        synther: network, noise levels, sampler.
        loop: length and batch of the fit.
        optim: its optimiser.
    """

    samples: int = 10_000
    synther: SyntherConfig = field(
        default_factory=lambda: SyntherConfig(
            model=ResidualNetConfig(width=256, blocks=4), sampling=SamplingConfig(steps=32)
        )
    )
    loop: LoopConfig = field(default_factory=lambda: _loop(2000))
    optim: OptimConfig = _OPTIM

    def __post_init__(self) -> None:
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 1:
            raise ConfigError(f"samples must be a whole number, 1 or more, but got {self.samples!r}")
        if self.loop.num_grad_steps is None:
            raise ConfigError("training: expected num_grad_steps, the length of each refit, got none")


PAPER = RefitConfig(
    samples=1_000_000,
    synther=SyntherConfig(model=ResidualNetConfig(width=1024, blocks=6, embed_dim=256)),
    loop=_loop(100_000),
)
"""Lu et al. 2023, section 4.2, and their code (its default file draws 200,000 samples, its README 1,000,000)."""


@dataclass(frozen=True)
class Refit:
    """What a refit was; plain numbers.

    Args:
        seeds: of the fit (weights, order, noise) and of the samples.
        real: N.
        samples: drawn.
        grad_steps: of the fit.
        loss: of its last step.
        fit_seconds: what the fit took.
        sample_seconds: what drawing took.
        ks_mean: KS complement of the columns' marginals, 1 where they agree.
        ks_min: of the worst column.
        correlation_mean: similarity of the correlations of pairs of columns.
        correlation_min: of the worst pair.
        copies: share of samples that are real rows.
        terminal_rate: share of terminals, real and synthetic.
        reward_mean: likewise.
    """

    seeds: tuple[int, int]
    real: int
    samples: int
    grad_steps: int
    loss: float
    fit_seconds: float
    sample_seconds: float
    ks_mean: float
    ks_min: float
    correlation_mean: float
    correlation_min: float
    copies: float
    terminal_rate: tuple[float, float]
    reward_mean: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        found: dict[str, Any] = plain(self)
        return found


def refit(
    real: Transitions,
    bounds: Bounds,
    config: RefitConfig,
    *,
    seeds: tuple[int, int],
    device: torch.device,
    on_progress: OnProgress = lambda what, done, of: None,
) -> tuple[Transitions, Refit]:
    """Fits a new model to real transitions and returns samples of it, and what it was like.

    The random numbers of the caller's torch are left as they were: whether an agent's replay is refitted does not
    change what the agent draws.

    Args:
        real: N rows, at least one batch.
        bounds: of the action.
        config: how.
        seeds: of the fit and of the samples.
        device: where.
        on_progress: told now and then.

    Raises:
        DataError: fewer rows than a batch, or numbers that are not finite.
        NonFiniteLossError: training diverged.
        KeyboardInterrupt: Ctrl-C; nothing is torn.
    """
    watch = _Watch(on_progress)
    fit = FitConfig(config.loop, config.optim, HookConfig(), seeds[0], device)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        torch.manual_seed(seeds[0])  # first weights are drawn from it
        begun = time.perf_counter()
        model = SyntherAugmenter(real.columns, bounds, config.synther, InMemory(fit, (watch,)))
        model.fit(real)
        fitted = time.perf_counter()
        synthetic = _drawn(model, config.samples, seeds[1], on_progress)
        drawn = time.perf_counter()
    like = fidelity(real, synthetic, RealRows(model, real))
    return synthetic, Refit(
        seeds=seeds,
        real=len(real),
        samples=len(synthetic),
        grad_steps=watch.grad_step,
        loss=watch.loss,
        fit_seconds=fitted - begun,
        sample_seconds=drawn - fitted,
        ks_mean=like.ks_mean,
        ks_min=like.ks_min,
        correlation_mean=like.correlation_mean,
        correlation_min=like.correlation_min,
        copies=like.nearest.copies,
        terminal_rate=like.terminal_rate,
        reward_mean=like.reward_mean,
    )


def _drawn(model: SyntherAugmenter, count: int, seed: int, on_progress: OnProgress) -> Transitions:
    starts = range(0, count, ROWS)
    parts = []
    for at, part_seed in zip(starts, np.random.SeedSequence(seed).generate_state(len(starts)), strict=True):
        on_progress("sample", at, count)
        parts.append(model.sample_batch(min(ROWS, count - at), seed=int(part_seed)).rows)
    return Transitions(model.columns, np.concatenate(parts))


class _Watch(StatelessHook):
    """Tells how far a fit is, and keeps its last loss."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self.grad_step, self.loss = 0, float("nan")

    def after_step(self, loop: TrainingLoop) -> None:
        """Tells."""
        self.grad_step, self.loss = loop.grad_step, loop.last.loss
        self._on_progress("fit", loop.grad_step, loop.num_grad_steps)
