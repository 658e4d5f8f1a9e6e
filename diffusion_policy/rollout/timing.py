"""Delay as an evaluation simulates it, and how smooth a robot would find what was sent.

Letters: T actions of an episode, Da the numbers of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.control.strategies import Strategy
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.statistics import bootstrap_mean
from diffusion_policy.settings import plain

_DELAY_STREAM = 2  # streams 0 and 1 of an episode's seed are the environment's and the policy's


@dataclass(frozen=True)
class Timing:
    """How an evaluation lets time pass: a plan asked for at one env step is there some steps later.

    The environment goes on meanwhile, with what earlier plans say. One plan is computed at a time, as on one computer.

    Args:
        strategy: how plans follow each other.
        latency_steps: env steps from a question to its plan.
        jitter_steps: up to how many more, drawn evenly for each plan.
    """

    strategy: Strategy
    latency_steps: int = 0
    jitter_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("latency_steps", "jitter_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{name} must be a whole number of env steps, 0 or more, but got {value!r}")

    def delays(self, seed: int) -> np.random.Generator:
        """Returns the chance of an episode's delays."""
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DELAY_STREAM,)))

    def delay(self, chance: np.random.Generator) -> int:
        """Returns the env steps that a plan takes."""
        return self.latency_steps + int(chance.integers(0, self.jitter_steps + 1))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, with the strategy's class."""
        return {
            "strategy": {"name": type(self.strategy).__name__, **plain(self.strategy)},
            "latency_steps": self.latency_steps,
            "jitter_steps": self.jitter_steps,
        }


@dataclass(frozen=True)
class Smoothness:
    """How smooth the actions of an episode were, in the action's unit per env step to the power of the order.

    Args:
        jerk: root mean square of the third difference, over all steps and the length of the vector; 0 for T < 4.
        jump: mean length of the second difference at steps where another plan came into force: how much the speed
            changes there; None where that never happened.
        drift: the same at steps that have no part in a joint, to compare with; None where there are none.
        starved: env steps for which no plan had an action; they and the two after them count in neither.
    """

    jerk: float
    jump: float | None
    drift: float | None
    starved: int

    @classmethod
    def of(cls, actions: Sequence[Array], joints: Sequence[int], starved: Sequence[int] = ()) -> "Smoothness":
        """Returns how smooth actions were.

        Args:
            actions: T of (*Da), in the order they were sent.
            joints: numbers of the actions that were the first of another plan.
            starved: numbers of the actions that no plan had.
        """
        sent = np.stack([np.ravel(action) for action in actions]).astype(np.float64)  # (T, Da)
        third = np.linalg.norm(np.diff(sent, 3, axis=0), axis=1)  # (T - 3,)
        second = np.linalg.norm(np.diff(sent, 2, axis=0), axis=1)  # (T - 2,): entry i ends with action i + 2
        number, first, lacking = np.arange(2, len(sent)), np.array(joints, int), np.array(starved, int)
        still = ~np.isin(number, [lacking, lacking + 1, lacking + 2])
        at_joint = np.isin(number, first) & still
        between = ~np.isin(number, [first, first + 1]) & still  # a jump shows in the difference after it, too
        return cls(
            jerk=float(np.sqrt(np.mean(third**2))) if len(third) else 0.0,
            jump=float(second[at_joint].mean()) if at_joint.any() else None,
            drift=float(second[between].mean()) if between.any() else None,
            starved=len(lacking),
        )


def summary(episodes: Sequence[Smoothness]) -> dict[str, Any]:
    """Returns the means of the episodes that have a figure, with intervals; None where none has."""
    found: dict[str, Any] = {"starved_steps": sum(each.starved for each in episodes)}
    for name in ("jerk", "jump", "drift"):
        values = [value for each in episodes if (value := getattr(each, name)) is not None]
        found[name] = bootstrap_mean(values).to_dict() if values else None
    return found
