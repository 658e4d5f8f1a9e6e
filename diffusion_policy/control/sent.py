"""What a robot was told last, and when: what holds it, and rates, count from there.

Letters: Da the axes of one action.
"""

import numpy as np

from diffusion_policy.policies.chunk import FloatArray

LONGEST_STEPS = 2
"""Since the last action, for which a rate permits change: one tick may be lost or late on a ramp at its rate. A loop
that stood still for longer left the robot where it was, and does not make good for it with one jump."""


class Sent:
    """The last action of an episode, or where the robot stands before the first.

    Args:
        step_s: seconds from one action to the next.
        here: (*Da), the action that leaves the robot where it is; None where nobody knows.

    Attributes:
        action: (*Da), the last one; None where nobody knows.
        anything: whether one was sent in this episode.
        changed_s: the last time at which another was sent than planned; -inf before the first.
    """

    def __init__(self, step_s: float, here: FloatArray | None = None) -> None:
        self.action, self.anything, self.changed_s = here, False, -np.inf
        self._step_s, self._time_s = step_s, np.nan

    def take(self, action: FloatArray, time_s: float, *, as_planned: bool) -> None:
        """Is told what is sent at a time."""
        self.action, self._time_s, self.anything = action, time_s, True
        if not as_planned:
            self.changed_s = time_s

    def elapsed_s(self, time_s: float) -> float:
        """Returns the seconds since the last action for which a rate permits change; a step before the first."""
        elapsed_s = self._step_s if np.isnan(self._time_s) else time_s - self._time_s
        return float(min(elapsed_s, LONGEST_STEPS * self._step_s))
