"""The plans that have actions to come, when they arrived, and what became of the others.

Letters: N actions of a plan, Da the axes of one.
"""

from collections import deque

from diffusion_policy.control.plan import Plan, PlanRequest
from diffusion_policy.control.records import PlanCounts
from diffusion_policy.policies.chunk import FloatArray

_LATE = 1e-3
"""Part of a step by which a plan may come behind the end of the one before and still be in time."""


class RunningPlans:
    """Plans of an episode, in the order they were asked for; those that are over when one arrives are let go.

    Args:
        step_s: seconds from one action to the next.
        slow: of the episode before.

    Attributes:
        counts: what became of plans, and of ticks.
        asked_s: time from which steps to the next question are counted; None before the first.
        slow: how the first plan that came too late for the robot to go on did so; None while all come in time.
    """

    def __init__(self, step_s: float, slow: str | None = None) -> None:
        self.counts = PlanCounts()
        self.asked_s: float | None = None
        self.slow = slow
        self._step_s = step_s
        self._plans: deque[Plan] = deque()
        self._expected: tuple[PlanRequest, FloatArray] | None = None

    @property
    def newest(self) -> Plan | None:
        """The plan that arrived last, None before the first."""
        return self._plans[-1] if self._plans else None

    def all(self) -> list[Plan]:
        """Returns the plans, the newest last."""
        return list(self._plans)

    def expect(self, request: PlanRequest, actions: FloatArray) -> None:
        """Keeps a plan until the robot says what time it is; see `tick`."""
        self._expected = request, actions

    def tick(self, time_s: float, *, waits: bool) -> None:
        """Is told that the robot acts at a time: a plan that was expected arrives.

        Args:
            time_s: now.
            waits: see `arrive`.
        """
        if self._expected is not None:
            (request, actions), self._expected = self._expected, None
            self.arrive(request, actions, time_s, waits=waits)

    def arrive(self, request: PlanRequest, actions: FloatArray, time_s: float, *, waits: bool) -> None:
        """Takes a plan, or drops and counts it: overtaken by a newer one, or past as a whole.

        Args:
            request: what was asked.
            actions: (N, *Da), the first for the time of its observation.
            time_s: when it arrives.
            waits: whether the robot stands still for its first plan, which begins when it arrives.
        """
        before, begins_s = self.newest, request.observed_s
        if waits:
            begins_s = max(begins_s, time_s)
            if self.asked_s == request.observed_s:  # the next one is due so many steps after its first action
                self.asked_s = begins_s
        plan = Plan(begins_s, self._step_s, actions, time_s, request.observed_s)
        if before is not None and before.observed_s > plan.observed_s:
            self.counts.overtaken += 1
            return
        self.slow = self.slow or _slow(before, plan)
        if not plan.remaining(time_s):
            self.counts.expired += 1
            return
        self.counts.accepted += 1
        self.counts.skipped += max(0, plan.index(time_s))
        self._plans.append(plan)
        while self._plans[0].end_s <= time_s:
            self._plans.popleft()


def _slow(before: Plan | None, plan: Plan) -> str | None:
    """Returns by how much a plan came too late, None where it came in time."""
    came = f"a plan came {plan.ready_s - plan.observed_s:.3g} s after the observation that it rests on"
    lasts = f"its {len(plan.actions)} actions last {len(plan.actions) * plan.step_s:.3g} s"
    if not plan.remaining(plan.ready_s):
        return f"{came}, and {lasts}: all of them were past"
    if before is not None and plan.observed_s <= before.end_s < plan.ready_s - _LATE * plan.step_s:
        return f"{came}, {plan.ready_s - before.end_s:.3g} s after the end of the one before; {lasts}"
    return None
