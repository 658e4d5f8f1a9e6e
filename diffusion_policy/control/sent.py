"""What a robot was told last, and when: what holds it, and rates, count from there.

Letters: Da the axes of one action.
"""

import numpy as np

from diffusion_policy.config import ActionSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import FloatArray, KnownActions, clipped

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

    def correct(self, action: FloatArray, time_s: float) -> None:
        """Is told what was sent at a time, whatever was said for it; where it is the same, nothing has changed."""
        same = time_s == self._time_s and self.action is not None and np.array_equal(action, self.action)
        self.take(action, time_s, as_planned=same)

    def elapsed_s(self, time_s: float) -> float:
        """Returns the seconds since the last action for which a rate permits change; a step before the first."""
        elapsed_s = self._step_s if np.isnan(self._time_s) else time_s - self._time_s
        return float(min(elapsed_s, LONGEST_STEPS * self._step_s))

    def as_executed(self, known: KnownActions, observed_s: float, start: int) -> KnownActions:
        """Returns what a plan should agree with, without steps of the past that are not known to have been executed.

        Args:
            known: actions one step apart.
            observed_s: time of the one with number `start`.
            start: steps of the past.
        """
        times = observed_s + (np.arange(known.weight.shape[1]) - start) * self._step_s
        past = (times < observed_s - 0.5 * self._step_s) & (times < self.changed_s + 0.5 * self._step_s)
        return KnownActions(known.actions, np.where(past, 0, known.weight).astype(np.float32))


def checked_action(name: str, said: object, action_spec: ActionSpec) -> FloatArray:
    """Returns a copy of an action (*Da) within the action's bounds.

    Args:
        name: what it is called in an error.
        said: the action.
        action_spec: what it must be.

    Raises:
        ConfigError: it is none.
    """
    try:
        action = np.array(said, np.float32)
    except (TypeError, ValueError):
        action = np.empty(0, np.float32)  # as wrong as any other shape
    if action.shape != action_spec.shape or not np.isfinite(action).all():
        raise ConfigError(f"{name} must be {action_spec.shape} finite numbers, but got {said!r:.200}")
    if not np.array_equal(clipped(action, action_spec), action):
        raise ConfigError(f"{name} must be within the action's bounds, but got {action}")
    return action
