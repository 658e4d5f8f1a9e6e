"""How plans become actions: which moment asks for the next plan, what it must agree with, and which plan is obeyed.

Letters: Tp pred_horizon, N actions of a plan, d steps that planning takes, s steps from one plan to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffusion_policy.config import Horizons
from diffusion_policy.control.plan import Plan
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import Array, FloatArray, KnownActions


class Strategy(Protocol):
    """One of this module's classes, or your own; holds settings, no state."""

    def check(self, horizons: Horizons) -> None:
        """Raises ConfigError where its settings do not fit a policy."""

    def is_due(self, asked_s: float | None, observed_s: float, step_s: float) -> bool:
        """Whether to ask for a plan from an observation of `observed_s`, the last plan being from one of `asked_s`."""

    def known(self, plans: Sequence[Plan], time_s: float, horizons: Horizons) -> KnownActions | None:
        """Returns what a plan that is asked for now should agree with, of one row; None for nothing."""

    def action(self, plans: Sequence[Plan], time_s: float) -> FloatArray | None:
        """Returns the action (*Da) for a time, None where no plan has one.

        Args:
            plans: those that arrived, the newest last.
            time_s: now.
        """


@dataclass(frozen=True)
class Chunking:
    """Plans every `every` steps, and obeys the newest plan; what is past when it arrives is never executed.

    Args:
        every: s, steps from one question to the next.
    """

    every: int

    def check(self, horizons: Horizons) -> None:
        """See `Strategy`; a plan that ends before the next one is there leaves nothing to send, which is counted."""
        _check_every(self.every, horizons)

    def is_due(self, asked_s: float | None, observed_s: float, step_s: float) -> bool:
        """See `Strategy`; half a step early is better than half a step late."""
        return asked_s is None or observed_s - asked_s > (self.every - 0.5) * step_s

    def known(self, plans: Sequence[Plan], time_s: float, horizons: Horizons) -> KnownActions | None:
        """Returns None: a plan is free to begin as it likes."""
        return None

    def action(self, plans: Sequence[Plan], time_s: float) -> FloatArray | None:
        """See `Strategy`."""
        for plan in reversed(plans):
            if (action := plan.find(time_s)) is not None:
                return action
        return None


@dataclass(frozen=True)
class Ensembling(Chunking):
    """Obeys the weighted mean of all plans that have an action for now (Zhao et al. 2023, ACT, section IV.B).

    Weights are exp(-m i), i = 0 for the oldest plan, as published: a small m trusts new plans soon. Means of plans that
    go different ways go neither: on such tasks, chunks that agree with each other (`RealTimeChunking`) are better.

    Args:
        every: s, steps from one question to the next; 1 as published.
        m: how much older plans weigh more.
    """

    every: int = 1
    m: float = 0.01

    def action(self, plans: Sequence[Plan], time_s: float) -> FloatArray | None:
        """See `Strategy`."""
        said = [action for plan in plans if (action := plan.find(time_s)) is not None]  # oldest first
        if not said:
            return None
        weights = np.exp(-self.m * np.arange(len(said), dtype=np.float64))
        mean: FloatArray = np.tensordot(weights / weights.sum(), np.stack(said), 1).astype(np.float32)
        return mean


@dataclass(frozen=True)
class RealTimeChunking(Chunking):
    """Asks for chunks that go on where the running one will be (Black, Galliker and Levine 2025, equation 5).

    The actions that will be executed while the next chunk is computed, `delay` of them, weigh 1; those of the running
    chunk beyond weigh less and less; where it has none the next chunk is free. So chunks join with smaller jumps; how
    small depends on how far the network lets itself be pulled. The sampler is guided (`diffusion.guidance`), which
    needs a diffusion policy's policy.pt.

    Args:
        every: s, steps from one question to the next.
        delay: d, steps that a plan is expected to take; more is safe, and makes plans react later.
    """

    delay: int = 1

    def check(self, horizons: Horizons) -> None:
        """See `Strategy`."""
        super().check(horizons)
        longest = horizons.pred_horizon - horizons.start
        if not 0 <= self.delay <= longest:
            raise ConfigError(
                f"real-time chunking: delay must be in [0, {longest}] steps (pred_horizon {horizons.pred_horizon} - "
                f"{horizons.start} before now), but got {self.delay}; a plan has no more actions"
            )

    def known(self, plans: Sequence[Plan], time_s: float, horizons: Horizons) -> KnownActions | None:
        """Returns the running chunk where it will still be, weighed by how surely it will be executed."""
        running = next((plan for plan in reversed(plans) if plan.covers(time_s)), None)
        if running is None:
            return None
        places = np.arange(horizons.pred_horizon) - horizons.start  # 0: now
        index = running.index(time_s) + places  # of the running chunk
        executed_from = running.index(max(running.ready_s, running.start_s))  # before, another chunk was obeyed
        has = (index >= min(executed_from, running.index(time_s))) & (index < len(running.actions))
        weight = soft_weights(places, self.delay, running.remaining(time_s)) * has
        actions = running.actions[np.clip(index, 0, len(running.actions) - 1)]
        return KnownActions(actions[None], weight.astype(np.float32)[None])


STRATEGIES = ("chunking", "ensembling", "real_time")


def make_strategy(
    name: str, horizons: Horizons, *, delay: int = 0, every: int | None = None, m: float = 0.01
) -> Strategy:
    """Returns a strategy by name, with what suits a policy where nothing is said.

    Args:
        name: chunking, ensembling or real_time.
        horizons: of the policy.
        delay: d, steps that planning is expected to take.
        every: s, steps from one question to the next; None: action_horizon, or fewer where that lets a plan last until
            the next one is there, but not fewer than the delay (one plan is computed at a time); 1 for ensembling.
        m: of ensembling.

    Raises:
        ConfigError: no such strategy, or the settings do not fit the policy.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"strategy: expected one of {', '.join(STRATEGIES)}, but got {name!r}")
    actions = horizons.pred_horizon - horizons.start
    lasting = min(actions, max(1, delay, min(horizons.action_horizon, actions - delay)))
    strategy: Strategy
    if name == "ensembling":
        strategy = Ensembling(1 if every is None else every, m)
    elif name == "real_time":
        strategy = RealTimeChunking(lasting if every is None else every, min(delay, actions))
    else:
        strategy = Chunking(lasting if every is None else every)
    strategy.check(horizons)
    return strategy


def soft_weights(places: Array, delay: int, overlap: int) -> Array:
    """Returns how much steps of the running chunk weigh: 1, then exponentially less, then 0.

    Equation 5 of real-time chunking: with i the step from now, 1 for i < delay, c (e^c - 1) / (e - 1) with
    c = (overlap - i) / (overlap - delay + 1) up to the overlap's end, 0 beyond. Steps before now were executed: 1.

    Args:
        places: i, any shape.
        delay: d, steps that will be executed for sure.
        overlap: steps that the running chunk still has.
    """
    c = np.clip((overlap - places) / max(1, overlap - delay + 1), 0, 1)
    decaying = c * np.expm1(c) / np.expm1(1)
    weights: Array = np.where(places < min(delay, overlap), 1.0, np.where(places < overlap, decaying, 0.0))
    return weights


def _check_every(every: int, horizons: Horizons) -> None:
    longest = horizons.pred_horizon - horizons.start
    if not 1 <= every <= longest:
        raise ConfigError(
            f"every must be in [1, {longest}] steps (pred_horizon {horizons.pred_horizon} - {horizons.start} before "
            f"now), but got {every}; a plan has no more actions"
        )
