"""The plans that have actions to come, and what became of the others."""

from collections import deque

from diffusion_policy.control.plan import Plan
from diffusion_policy.control.records import PlanCounts


class RunningPlans:
    """Plans of an episode, in the order they were asked for; those that are over when one arrives are let go.

    Attributes:
        counts: what became of plans, and of ticks.
    """

    def __init__(self) -> None:
        self.counts = PlanCounts()
        self._plans: deque[Plan] = deque()

    @property
    def newest(self) -> Plan | None:
        """The plan that arrived last, None before the first."""
        return self._plans[-1] if self._plans else None

    def all(self) -> list[Plan]:
        """Returns the plans, the newest last."""
        return list(self._plans)

    def take(self, plan: Plan, time_s: float) -> None:
        """Takes a plan that arrives at a time, or drops and counts it: overtaken by a newer one, or past as a whole."""
        if self._plans and self._plans[-1].observed_s > plan.observed_s:
            self.counts.overtaken += 1
        elif not plan.remaining(time_s):
            self.counts.expired += 1
        else:
            self.counts.accepted += 1
            self.counts.skipped += max(0, plan.index(time_s))
            self._plans.append(plan)
            while self._plans[0].end_s <= time_s:
                self._plans.popleft()
