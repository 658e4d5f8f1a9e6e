"""The settings of dp-online, each as what reads it takes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffusion_policy.augment.synther import SyntherConfig
from diffusion_policy.errors import ConfigError
from diffusion_policy.online.refit import RefitConfig
from diffusion_policy.policies.device import pick_device
from diffusion_policy.settings import build, section
from diffusion_policy.training.loop import LoopConfig
from diffusion_policy.training.optim import OptimConfig

MODEL_SECTIONS = ("model", "edm", "sampling")
SECTIONS = (*MODEL_SECTIONS, "optim", "training", "sac", "evaluation")
_OTHERS = ("out", "device", "plugins")


@dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic (Haarnoja et al. 2018) as stable-baselines3 has it, its entropy coefficient learned.

    Args:
        hidden_dims: of actor and critics.
        lr: of both.
        batch_size: rows a gradient step, real and synthetic.
        gamma: discount.
        tau: how fast the target critics follow.
        learning_starts: environment steps of uniform actions before the first gradient step.
    """

    hidden_dims: tuple[int, ...] = (64, 64)
    lr: float = 3e-4
    batch_size: int = 128
    gamma: float = 0.99
    tau: float = 0.005
    learning_starts: int = 500

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("learning_starts", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"sac.{name} must be {least} or more, but got {getattr(self, name)}")
        if not self.lr > 0 or not 0 <= self.gamma <= 1 or not 0 < self.tau <= 1:
            raise ConfigError(
                f"sac: expected lr above 0, gamma in [0, 1] and tau in (0, 1], but got {self.lr}, {self.gamma} and "
                f"{self.tau}"
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how the agent is evaluated.

    Args:
        every: environment steps; 0 for before and after only.
        episodes: of one evaluation.
        seed: of its first episode.
    """

    every: int = 500
    episodes: int = 10
    seed: int = 100_000

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("episodes", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"evaluation.{name} must be {least} or more, but got {getattr(self, name)}")


@dataclass(frozen=True)
class OnlineConfig:
    """What a run does.

    Args:
        env: id of the environment.
        env_kwargs: its arguments.
        steps: environment steps, of all environments together.
        update_ratio: gradient steps an environment step.
        synthetic_ratio: share of synthetic rows in a batch; 0 for plain soft actor-critic.
        refit_every: environment steps between two refreshes.
        samples: synthetic transitions drawn at each.
        seed: of everything but evaluations.
        num_envs: environments side by side.
        rounded: numbers of the observation that are whole: "observation[3]".
        one_hot: ranges of it of which one is 1 and the others 0: "observation[4:8]".
    """

    env: str
    env_kwargs: Mapping[str, Any]
    steps: int = 10_000
    update_ratio: int = 20
    synthetic_ratio: float = 0.5
    refit_every: int = 1000
    samples: int = 10_000
    seed: int = 0
    num_envs: int = 1
    rounded: tuple[str, ...] = ()
    one_hot: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "update_ratio", "refit_every", "num_envs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, but got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, but got {self.seed}")
        if not 0 <= self.synthetic_ratio < 1:
            raise ConfigError(
                f"synthetic_ratio must be in [0, 1), the share of synthetic rows in a batch, but got "
                f"{self.synthetic_ratio}"
            )
        if self.synthetic_ratio and self.refit_every >= self.steps:
            raise ConfigError(
                f"refit_every must be below steps, or nothing is ever synthetic, but got {self.refit_every} and "
                f"{self.steps}; for plain soft actor-critic give synthetic_ratio=0"
            )


@dataclass(frozen=True)
class OnlineParts:
    """All settings of a run.

    Args:
        run: what it does.
        sac: the agent.
        evaluation: when and how it is evaluated.
        refit: the model of transitions.
        device: where both learn.
    """

    run: OnlineConfig
    sac: SacConfig
    evaluation: EvaluationConfig
    refit: RefitConfig
    device: torch.device


def parts_of(settings: Mapping[str, Any]) -> OnlineParts:
    """Returns plain settings as what reads them.

    Raises:
        ConfigError: a setting is unknown, is missing, or does not fit.
    """
    own = [name for name in OnlineConfig.__dataclass_fields__ if name != "env"]
    known = ["env", *own, *SECTIONS, *_OTHERS]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(known)}")
    for name in ("env", "out"):
        if not settings.get(name):
            raise ConfigError(f"{name}: expected a value, got nothing; give {name}=...")
    given = {name: settings[name] for name in ("env", *own) if name in settings}
    run = build(OnlineConfig, {"env_kwargs": {}, **given}, "settings")
    refit = RefitConfig(
        samples=run.samples,
        synther=SyntherConfig.from_plain({name: section(settings, name) for name in MODEL_SECTIONS}),
        loop=build(LoopConfig, {"num_grad_steps": None, **section(settings, "training")}, "training"),
        optim=build(OptimConfig, section(settings, "optim"), "optim"),
    )
    sac = build(SacConfig, section(settings, "sac"), "sac")
    _check_lengths(run, sac, refit)
    return OnlineParts(
        run,
        sac,
        build(EvaluationConfig, section(settings, "evaluation"), "evaluation"),
        refit,
        pick_device(str(settings.get("device", "auto"))),
    )


def _check_lengths(run: OnlineConfig, sac: SacConfig, refit: RefitConfig) -> None:
    """Raises ConfigError where a run is too short for what it is meant to show."""
    if sac.learning_starts >= run.steps:
        raise ConfigError(
            f"sac.learning_starts must be below steps, or the agent never learns, but got {sac.learning_starts} and "
            f"{run.steps}"
        )
    if run.synthetic_ratio and refit.loop.batch_size >= run.steps:
        raise ConfigError(
            f"training.batch_size must be below steps, or no model is ever fitted and nothing synthetic, but got "
            f"{refit.loop.batch_size} and {run.steps}; for plain soft actor-critic give synthetic_ratio=0"
        )
