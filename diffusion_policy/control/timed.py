"""Control by the clock: observations come when they come, plans when they are done, actions when they are due.

`RecedingHorizonController.act` is lock-step: the world waits while the policy thinks. On a robot it does not. Here
three things happen on their own: `observe(obs, time_s)` as a sensor measures, `plan(time_s)` as often as the strategy
wants (in this thread, or in one of its own: `planner.Planner`), `action_at(time_s)` at each tick of the motors.

Letters: Ta/Tp action/pred horizon, Da the axes of one action, N actions of a plan.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.control.episode import Episode
from diffusion_policy.control.guard import Guard
from diffusion_policy.control.history import checked_time
from diffusion_policy.control.plan import PlanRequest, answers, planned_actions, warm_up_guidance
from diffusion_policy.control.readings import Readings
from diffusion_policy.control.records import Tick
from diffusion_policy.control.safety import SafetyConfig, SafetyCounts
from diffusion_policy.control.sent import checked_action
from diffusion_policy.control.strategies import Chunking, Strategy, make_strategy
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.info import rate_of
from diffusion_policy.policies.own_process import PolicyProcess


class TimedController(Readings):
    """Runs a policy on one robot by the clock. Its methods may be called from different threads.

    Times are seconds on any clock that only goes forward, the same for all methods. A plan's first action is for the
    time of the newest observation that it rests on, the next for `step_s` later, and so on: whatever time a plan takes
    and whenever it is asked for, each of its actions is sent from its own time on until the next one's, or not at all.
    The first plan of an episode is another thing where nothing was sent before it arrived: the robot stood still for
    it, and so its first action is for the time at which it is there.

    Args:
        policy: what predicts; see `ChunkPolicy`.
        step_s: seconds from one action to the next, as in training: 1 / control_hz.
        strategy: how plans follow each other; None for a new one each time action_horizon steps have passed, as in
            lock-step (see `make_strategy` for plans that take time).
        safe_action: (*Da), what is sent before the first plan where nobody knows where the robot stands; None:
            `action_at` raises then.
        safety: rules for observations and actions; None for the action's bounds alone.
        seed: fixes all the noise of the first episode; None draws fresh entropy.

    Attributes:
        last_tick: the last action and what it rested on; None before the first of an episode.
        guard: applies the rules; `guard.stopped` says why it stopped, `guard.release()` lets it go on.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        *,
        step_s: float,
        strategy: Strategy | None = None,
        safe_action: FloatArray | None = None,
        safety: SafetyConfig | None = None,
        seed: int | None = None,
    ) -> None:
        if not (np.isfinite(step_s) and step_s > 0):
            raise ConfigError(f"step_s must be positive seconds from one action to the next, but got {step_s}")
        self.policy, self.step_s = policy, step_s
        self.strategy: Strategy = strategy or Chunking(policy.horizons.action_horizon)
        self.strategy.check(policy.horizons)
        self.safe_action = None if safe_action is None else checked_action("safe_action", safe_action, self.action_spec)
        self._safety = safety
        self._lock = threading.RLock()
        self.guard = Guard(safety or SafetyConfig(), self.obs_spec, self.action_spec, self.safe_action)
        self._current = Episode(policy, self.strategy, step_s, seed=seed, here=None, before=None)
        self.last_tick: Tick | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        step_s: float | None = None,
        strategy: str = "chunking",
        delay: int = 1,
        device: object = "cpu",
        precision: str | None = None,
        own_process: bool = False,
        **settings: Any,
    ) -> "TimedController":
        """Returns a controller for the policy in a file, warmed up: its first plan takes no longer than later ones.

        Args:
            path: e.g. "policy.pt"; see `RecedingHorizonController.load`.
            step_s: see the class; None: as the demonstrations had it, where the file tells.
            strategy: chunking, ensembling or real_time; see `make_strategy`.
            delay: steps that a plan is expected to take.
            device: where the engine computes.
            precision: float32 or bfloat16.
            own_process: lets the policy compute in a process of its own, so that ticks do not wait for Python's lock
                on a busy computer; see `PolicyProcess`.
            settings: further arguments of the class.

        Raises:
            MissingFileError: there is no such file.
            CheckpointError: no engine is known for this kind of file, or its content is damaged.
            ConfigError: a setting does not fit the policy, or real-time chunking a policy that cannot be guided; or
                nothing tells `step_s`.
        """
        with ExitStack() as in_vain:
            policy: ChunkPolicy
            if own_process:
                policy = in_vain.enter_context(PolicyProcess(path, device=str(device), precision=precision))
            else:
                policy = RecedingHorizonController.load(path, device=device, precision=precision, batch_size=1).policy
            step_s = _told_step(policy, path) if step_s is None else step_s
            made = cls(
                policy, step_s=step_s, strategy=make_strategy(strategy, policy.horizons, delay=delay), **settings
            )
            if strategy == "real_time":
                warm_up_guidance(policy)
            in_vain.pop_all()  # the controller keeps its process
        return made

    def reset(self, seed: int | None = None, at: FloatArray | None = None, *, moved: bool = False) -> None:
        """Begins a new episode: observations and plans are forgotten, counts are 0, the noise begins anew.

        Answers to what was asked before are no longer taken. A stop stays one, until `guard.release()`.

        Args:
            seed: fixes all the noise; None draws fresh entropy.
            at: (*Da), the action that would leave the robot where it is; rates count from there. It may be beyond the
                limits of safety, since it is a fact: the robot is brought back. None: it stands where the last action
                left it.
            moved: whether something else moved it since, and nobody knows where to: there is nothing to hold, and the
                first action is as planned.

        Raises:
            ConfigError: `at` is beyond the action's bounds, or no finite numbers.
        """
        here = None if at is None else checked_action("at", at, self.action_spec)
        with self._lock:
            if here is None and not moved:
                here = self._current.sent.action
            self._current = Episode(self.policy, self.strategy, self.step_s, seed=seed, here=here, before=self._current)
            self.guard.counts, self.last_tick = SafetyCounts(), None

    def observe(self, obs: object, time_s: float) -> None:
        """Takes an observation; see `ObservationHistory` for what late, missed and repeated ones mean.

        What the rules of safety do not admit is not taken: the observations before stand, and grow old.

        Raises:
            ObservationError: wrong key, shape or dtype; nothing has changed then. Without rules, numbers that are not
                finite, too.
        """
        with self._lock:
            self.history.add(obs, time_s, None if self._safety is None else self.guard.admits)

    def is_due(self, time_s: float) -> bool:
        """Whether the strategy wants a plan: there is an observation, newer than the last plan's by its interval."""
        with self._lock:
            return self._current.is_due(time_s)

    def request_if_due(self, time_s: float) -> PlanRequest | None:
        """Returns `request(time_s)` if a plan is due, None otherwise; nothing happens in between."""
        with self._lock:
            return self.request(time_s) if self.is_due(time_s) else None

    def request(self, time_s: float) -> PlanRequest:
        """Returns the question for a plan from what is known at a time; `accept` takes the answer.

        Raises:
            ObservationError: nothing was observed until then, or the time is no number.
        """
        with self._lock:
            return self._current.request(time_s)

    def accept(self, request: PlanRequest, prediction: FloatArray, time_s: float | None) -> None:
        """Takes the answer to a request at the time it arrives; its actions that are past by then are dropped.

        None is past where the robot waited: an episode's first plan begins at `time_s` if nothing was sent before.

        Args:
            request: what was asked.
            prediction: (Tp, *Da) in env units.
            time_s: now; None where only the robot tells what time it is: it arrives with the next tick then.

        Raises:
            CheckpointError: the answer has another shape, or is not finite; nothing has changed then.
        """
        actions = planned_actions(prediction, self.policy)
        if time_s is not None:
            checked_time(time_s)
        with self._lock:
            if request.episode != self.episode:
                self.counts.foreign += 1
            elif time_s is None:
                self._current.plans.expect(request, actions)
            else:
                self._current.plans.arrive(request, actions, time_s, waits=self._current.waits)

    def plan(self, time_s: float, clock: Callable[[], float] | None = None) -> None:
        """Makes a plan now and takes it.

        Args:
            time_s: now.
            clock: tells the time when the plan is there; None: it is taken as if planning took no time, for lock-step
                use and for tests.
        """
        request = self.request(time_s)
        prediction = answers(self.policy, [request])[0]
        self.accept(request, prediction, time_s if clock is None else clock())

    def action_at(self, time_s: float) -> FloatArray:
        """Returns the action for a time (*Da), always finite and permitted; see `tick` and `Guard.permitted`."""
        return self.tick(time_s).action

    def tick(self, time_s: float) -> Tick:
        """Returns the action for a time with what it rests on, which `last_tick` keeps.

        Where no plan has one, the robot is held: the last action is sent again, or none where actions are changes;
        where nobody knows the last one, it is `safe_action`.

        Raises:
            ObservationError: there was no plan yet and no safe action is known, or the time is no number.
        """
        with self._lock:
            current = self._current
            newest = current.history.newest(checked_time(time_s))
            current.plans.tick(time_s, waits=current.waits)
            wanted = self.strategy.action(current.plans.all(), time_s)
            age_s = np.inf if newest is None else time_s - newest[0]
            current.plans.counts.starved += wanted is None
            begun, elapsed_s = current.plans.newest is not None, current.sent.elapsed_s(time_s)
            sent = self.guard.permitted(wanted, current.sent.action, age_s, elapsed_s, starved=begun).copy()
            current.sent.take(sent, time_s, as_planned=wanted is not None and np.array_equal(sent, wanted))
            observed_s, observed = (time_s, {}) if newest is None else newest
            stopped = self.guard.stopped is not None
            self.last_tick = Tick(
                time_s, sent.copy(), observed, observed_s, self.newest_plan, wanted is None, stopped, self.episode
            )
            return self.last_tick

    def sent_instead(self, action: FloatArray, time_s: float) -> None:
        """Tells that something else was sent than the last tick said: what holds, and rates, count from there.

        Args:
            action: (*Da), as sent. It may be beyond the limits of safety, since it is a fact; the next one is not.
            time_s: when.

        Raises:
            ConfigError: it is beyond the action's bounds, or no finite numbers.
            ObservationError: the time is no number.
        """
        sent = checked_action("action", action, self.action_spec)
        with self._lock:
            self._current.sent.correct(sent, checked_time(time_s))


def _told_step(policy: ChunkPolicy, path: str | Path) -> float:
    """Returns the seconds from one action to the next that a policy's file tells."""
    rate = rate_of(policy)
    if rate is None:
        raise ConfigError(
            f"{path} does not tell the rate of its demonstrations; give step_s, seconds from one action to the next"
        )
    return 1 / rate
