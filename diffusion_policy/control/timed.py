"""Control by the clock: observations come when they come, plans when they are done, actions when they are due.

`RecedingHorizonController.act` is lock-step: the world waits while the policy thinks. On a robot it does not. Here
three things happen on their own: `observe(obs, time_s)` as a sensor measures, `plan(time_s)` as often as the strategy
wants (in this thread, or in one of its own: `planner.Planner`), `action_at(time_s)` at each tick of the motors.

Letters: Ta/Tp action/pred horizon, Da the axes of one action, N actions of a plan.
"""

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.control.history import ObservationHistory
from diffusion_policy.control.plan import Plan, PlanRequest, answers, warm_up_guidance
from diffusion_policy.control.safety import Guard, SafetyConfig
from diffusion_policy.control.strategies import Chunking, Strategy, make_strategy
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.episode_slots import noise_generator


@dataclass
class PlanCounts:
    """What became of plans and ticks.

    Args:
        accepted: plans that arrived in time to be of use.
        expired: plans that arrived when all their actions were past.
        overtaken: plans that arrived after one that was asked for later: dropped.
        skipped: actions that were past when their plan arrived, and were not sent.
        starved: ticks for which no plan had an action; the last action, or the safe one, was sent.
    """

    accepted: int = 0
    expired: int = 0
    overtaken: int = 0
    skipped: int = 0
    starved: int = 0


class TimedController:
    """Runs a policy on one robot by the clock. Its methods may be called from different threads.

    Times are seconds on any clock that only goes forward, the same for all methods. A prediction's first executable
    action is for the time of its observation, the next for `step_s` later, and so on: whatever time a plan takes, each
    of its actions is sent at its own time or not at all.

    Args:
        policy: what predicts; see `ChunkPolicy`.
        step_s: seconds from one action to the next, as in training: 1 / control_hz.
        strategy: how plans follow each other; None for a new one each time action_horizon steps have passed.
        safe_action: (*Da), what is sent before the first plan; None: `action_at` raises then.
        safety: rules for observations and actions; None for the action's bounds alone.
        seed: fixes all the noise; None draws fresh entropy.

    Attributes:
        counts: of plans and ticks; `history.counts` are those of observations, `guard.counts` those of safety.
        history: the observations.
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
        self.safe_action = None if safe_action is None else self._checked(np.asarray(safe_action, np.float32))
        self._safety = safety
        self._lock = threading.RLock()
        self.reset(seed)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        step_s: float,
        strategy: str = "chunking",
        delay: int = 1,
        device: object = "cpu",
        precision: str | None = None,
        **settings: Any,
    ) -> "TimedController":
        """Returns a controller for the policy in a file, warmed up: its first plan takes no longer than later ones.

        Args:
            path: e.g. "policy.pt"; see `RecedingHorizonController.load`.
            step_s: see the class.
            strategy: chunking, ensembling or real_time; see `make_strategy`.
            delay: steps that a plan is expected to take.
            device: where the engine computes.
            precision: float32 or bfloat16.
            settings: further arguments of the class.

        Raises:
            MissingFileError: there is no such file.
            CheckpointError: no engine is known for this kind of file, or its content is damaged.
            ConfigError: a setting does not fit the policy, or real-time chunking a policy that cannot be guided.
        """
        policy = RecedingHorizonController.load(path, device=device, precision=precision, batch_size=1).policy
        made = cls(policy, step_s=step_s, strategy=make_strategy(strategy, policy.horizons, delay=delay), **settings)
        if strategy == "real_time":
            warm_up_guidance(policy)
        return made

    def reset(self, seed: int | None = None) -> None:
        """Begins a new episode: observations and plans are forgotten, counts are 0, the noise begins anew."""
        with self._lock:
            self.history = ObservationHistory(self.policy.obs_spec, self.policy.horizons.obs_horizon, self.step_s)
            self.counts = PlanCounts()
            self.guard = Guard(self._safety or SafetyConfig(), self.obs_spec, self.action_spec, self.safe_action)
            self._plans: deque[Plan] = deque()  # those that have actions to come when the newest arrived
            self._asked_s: float | None = None
            self._last: FloatArray | None = None
            self._generator = noise_generator(seed)

    @property
    def obs_spec(self) -> ObsSpec:
        """The observations that `observe` takes."""
        return self.policy.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        """Shape, bounds and units of actions."""
        return self.policy.action_spec

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
        """Whether the strategy wants a plan now, and there is something to plan from."""
        with self._lock:
            return len(self.history) > 0 and self.strategy.is_due(self._asked_s, time_s, self.step_s)

    def request(self, time_s: float) -> PlanRequest:
        """Returns the question for a plan from what is known at a time; `accept` takes the answer.

        Raises:
            ObservationError: nothing was observed until then.
        """
        with self._lock:
            window = self.history.window(time_s)
            if window is None:
                raise ObservationError(f"nothing was observed until {time_s:g} s; call observe(obs, time_s) first")
            self._asked_s = time_s
            noise = self._generator.standard_normal(self.policy.noise_shape, dtype=np.float32)
            known = self.strategy.known(list(self._plans), time_s, self.policy.horizons)
            return PlanRequest(time_s, window, noise, known)

    def accept(self, request: PlanRequest, prediction: FloatArray, time_s: float) -> None:
        """Takes the answer to a request at the time it arrives; its actions that are past by then are dropped.

        Args:
            request: what was asked.
            prediction: (Tp, *Da) in env units.
            time_s: now.
        """
        actions = self._bounded(np.asarray(prediction[self.policy.horizons.start :], np.float32))
        plan = Plan(request.time_s, self.step_s, actions, time_s)
        with self._lock:
            if self._plans and self._plans[-1].start_s > plan.start_s:
                self.counts.overtaken += 1
            elif not plan.remaining(time_s):
                self.counts.expired += 1
            else:
                self.counts.accepted += 1
                self.counts.skipped += max(0, plan.index(time_s))
                self._plans.append(plan)
                while self._plans[0].end_s <= time_s:
                    self._plans.popleft()

    def plan(self, time_s: float) -> None:
        """Makes a plan now and takes it at once, as if planning took no time: for lock-step use and for tests."""
        request = self.request(time_s)
        self.accept(request, answers(self.policy, [request])[0], time_s)

    def action_at(self, time_s: float) -> FloatArray:
        """Returns the action for a time (*Da), always finite and permitted by the rules of safety.

        Where no plan has one, the robot is held: the last action is sent again, or none where actions are changes;
        before the first plan it is `safe_action`.

        Raises:
            ObservationError: there was no plan yet, and no safe action is known.
        """
        with self._lock:
            action = self.strategy.action(list(self._plans), time_s)
            if action is None:
                self.counts.starved += 1
                action = self.safe_action if self._last is None else self.guard.held(self._last)
            if action is None:
                raise ObservationError(
                    "there is no plan yet; observe and plan first, or give the controller a safe_action"
                )
            newest = self.history.newest_s
            age_s = 0.0 if newest is None else time_s - newest
            self._last = self.guard.permitted(action, self._last, age_s)
            return self._last.copy()

    @property
    def newest_plan(self) -> Plan | None:
        """The plan that arrived last, None before the first."""
        with self._lock:
            return self._plans[-1] if self._plans else None

    def age_s(self, time_s: float) -> float | None:
        """Returns how old the observation is that actions now rest on, seconds; None before the first plan."""
        plan = self.newest_plan
        return None if plan is None else time_s - plan.start_s

    def remaining(self, time_s: float) -> int:
        """Returns how many steps from now on the newest plan has actions for."""
        plan = self.newest_plan
        return 0 if plan is None else plan.remaining(time_s)

    def _bounded(self, actions: FloatArray) -> FloatArray:
        bounds = self.action_spec.bounds()
        if bounds is None:
            return actions
        low, high = (np.array(bound, np.float32).reshape(self.action_spec.shape) for bound in bounds)
        clipped: FloatArray = np.clip(actions, low, high)
        return clipped

    def _checked(self, action: FloatArray) -> FloatArray:
        if action.shape != self.action_spec.shape or not np.isfinite(action).all():
            raise ConfigError(f"safe_action must be {self.action_spec.shape} finite numbers, but got {action}")
        if not np.array_equal(self._bounded(action), action):
            raise ConfigError(f"safe_action must be within the action's bounds, but got {action}")
        return action
