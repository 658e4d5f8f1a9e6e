"""What a robot does while nobody says anything: it stays where it is, or goes to a safe action as slowly as it must.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.errors import MismatchError, ObservationError

FloatArray = NDArray[np.float32]


class Rest:
    """Knows the last action, and the rules that the server has told.

    Args:
        welcome: what the server said when it admitted us.

    Attributes:
        last: (*Da), the last action that was sent; None before the first.
        last_s: its time; NaN before the first.
    """

    def __init__(self, welcome: Mapping[str, Any]) -> None:
        self.last: FloatArray | None = None
        self.last_s = float("nan")
        self.rules(welcome)

    def rules(self, welcome: Mapping[str, Any]) -> None:
        """Takes the rules of a server: limits, and its safe action if it has one.

        Raises:
            MismatchError: they are none.
        """
        try:
            self._shape, self._delta = tuple(welcome["action"]["shape"]), welcome["action"]["kind"] == "delta"
            self._step_s = float(welcome["step_s"])
            self._low, self._high, self._rate = (
                np.array(welcome["limits"][name], np.float32).reshape(self._shape) for name in ("low", "high", "rate")
            )
            safe = welcome.get("safe_action")
            self._safe = None if safe is None else np.array(safe, np.float32).reshape(self._shape)
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"the server told rules that are none: {error!r}; is it dp-serve?") from error

    def checked(self, action: object) -> FloatArray:
        """Returns an action (*Da).

        Raises:
            MismatchError: it is none that is permitted.
        """
        try:
            found = np.array(action, np.float32)
        except (TypeError, ValueError) as error:
            raise MismatchError(f"expected an action of {self._shape} numbers, but got {action!r:.100}") from error
        if found.shape != self._shape or not np.isfinite(found).all():
            raise MismatchError(f"expected an action of {self._shape} finite numbers, but got {action}")
        if not ((found >= self._low) & (found <= self._high)).all():
            raise MismatchError(f"expected an action within {self._low} and {self._high}, but got {action}")
        return found

    def begin(self, here: FloatArray | None) -> None:
        """Forgets the last action; `here` leaves the robot where it is, None where nobody knows."""
        self.last, self.last_s = here, float("nan")

    def sent(self, action: FloatArray, time_s: float) -> None:
        """Remembers what was sent."""
        self.last, self.last_s = action, time_s

    def here(self) -> FloatArray | None:
        """Returns the action that leaves the robot where it is; None where nobody knows."""
        if not self._delta:
            return self.last
        nothing = np.zeros(self._shape, np.float32)
        return nothing if ((self._low <= 0) & (self._high >= 0)).all() else None

    def action(self, time_s: float, *, stopped: bool) -> FloatArray:
        """Returns what is sent at a time without an answer, and remembers it.

        Raises:
            ObservationError: nothing was sent yet, and no safe action is known.
        """
        if stopped and self._safe is not None:
            action = self._towards(self._safe, time_s)
        elif self.last is not None:
            action = np.zeros(self._shape, np.float32) if self._delta else self.last
        elif self._safe is not None:
            action = self._safe
        else:
            raise ObservationError(
                "there is no action to send yet, and the server does not answer; it needs an observation and a plan "
                "first, or a safe_action"
            )
        self.sent(action, time_s)
        return action.copy()

    def _towards(self, goal: FloatArray, time_s: float) -> FloatArray:
        if self.last is None:
            return goal
        # as on the server: a pause of the robot's loop permits no jump after it
        elapsed_s = self._step_s if np.isnan(self.last_s) else min(max(0.0, time_s - self.last_s), 2 * self._step_s)
        reach = np.full(self._shape, np.inf)
        np.multiply(self._rate, elapsed_s, out=reach, where=np.isfinite(self._rate), dtype=np.float64)
        before = self.last.astype(np.float64)
        found: FloatArray = np.clip(before + np.clip(goal - before, -reach, reach), self._low, self._high)
        return found.astype(np.float32)
