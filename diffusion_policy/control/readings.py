"""What can be read of a controller by the clock while it runs: what it takes and gives, its plan, its counts."""

import threading
from dataclasses import replace

import numpy as np

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.control.episode import Episode
from diffusion_policy.control.guard import Guard
from diffusion_policy.control.history import ObservationHistory
from diffusion_policy.control.plan import Plan
from diffusion_policy.control.records import PlanCounts, Tick
from diffusion_policy.policies.chunk import ChunkPolicy


class Readings:
    """The part of `TimedController` that changes nothing.

    Attributes:
        policy: what predicts.
        guard: applies the rules of safety.
        last_tick: the last action and what it rested on; None before the first of an episode.
    """

    policy: ChunkPolicy
    guard: Guard
    last_tick: Tick | None
    _current: Episode
    _lock: "threading.RLock"

    @property
    def episode(self) -> int:
        """Its number, from 0."""
        return self._current.number

    @property
    def history(self) -> ObservationHistory:
        """The observations."""
        return self._current.history

    @property
    def counts(self) -> PlanCounts:
        """Of plans and ticks; `history.counts` are those of observations, `guard.counts` those of safety."""
        return self._current.plans.counts

    @property
    def slow(self) -> str | None:
        """How the first plan that came too late for the robot to go on did so, in figures; None while all come in time.

        The policy is too slow for its rate then, or is asked too late.
        """
        return self._current.plans.slow

    @property
    def obs_spec(self) -> ObsSpec:
        """The observations that `observe` takes."""
        return self.policy.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        """Shape, bounds and units of actions."""
        return self.policy.action_spec

    @property
    def waits(self) -> bool:
        """Whether the robot stands still for the first plan of an episode: nothing was sent, and there is none."""
        with self._lock:
            return self._current.waits

    @property
    def newest_plan(self) -> Plan | None:
        """The plan that arrived last, None before the first."""
        with self._lock:
            return self._current.plans.newest

    def age_s(self, time_s: float) -> float | None:
        """Returns how old the newest observation of the newest plan is, seconds; None before the first plan."""
        plan = self.newest_plan
        return None if plan is None else time_s - plan.observed_s

    def remaining(self, time_s: float) -> int:
        """Returns how many steps from now on the newest plan has actions for."""
        plan = self.newest_plan
        return 0 if plan is None else plan.remaining(time_s)

    def ahead(self, most: int) -> Plan | None:
        """Returns what is wanted from the last tick on if nothing else comes, neither observations nor plans.

        Its first action is for the step that runs, the next for the one after, all of them within the limits; rates are
        for whoever sends them, since they count from what is sent. It ends where no plan has an action, or a rule of
        safety would hold or stop the robot. None where nothing is left.

        Args:
            most: actions at most.
        """
        with self._lock:
            tick = self.last_tick
            coming = None if tick is None or tick.starved else self._current.coming(tick.time_s, most)
            if tick is None or coming is None:
                return None
            ages_s = tick.time_s - tick.observed_s + coming.step_s * np.arange(len(coming.actions))
            actions = self.guard.foreseen(coming.actions, self._current.sent.action, ages_s, coming.step_s)
            return replace(coming, actions=actions) if len(actions) else None
