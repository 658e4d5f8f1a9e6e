"""What a robot may do while nobody says anything: stay where it is, or go to an action as slowly as it must.

The rules are the server's, and mean the same here: see `diffusion_policy.control.guard`.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.errors import MismatchError, ObservationError
from diffusion_policy_client.protocol import MOST_SAID

FloatArray = NDArray[np.float32]


class Rest:
    """Knows the last action, and the rules that the server has told.

    Args:
        welcome: what the server said when it admitted us.

    Attributes:
        last: (*Da), the last action that was sent, or what leaves the robot where it is; None where nobody knows.
        last_s: its time; NaN before the first of an episode.
    """

    def __init__(self, welcome: Mapping[str, Any]) -> None:
        self.last: FloatArray | None = None
        self.last_s = float("nan")
        self.rules(welcome)

    def rules(self, welcome: Mapping[str, Any]) -> None:
        """Takes the rules of a server: bounds, limits, and its safe action if it has one.

        Raises:
            MismatchError: they are none.
        """
        try:
            action, limits, safe = welcome["action"], welcome["limits"], welcome.get("safe_action")
            self._shape, self._delta = tuple(action["shape"]), action["kind"] == "delta"
            both = action["low"] is not None and action["high"] is not None
            ends = (action["low"], action["high"]) if both else (-np.inf, np.inf)
            self._bounds = tuple(_spread(end, self._shape) for end in ends)
            self._low, self._high, self._rate = (_spread(limits[name], self._shape) for name in ("low", "high", "rate"))
            self._step_s, self._longest_s = float(welcome["step_s"]), float(limits["elapsed_s"])
            self._safe = None if safe is None else _spread(safe, self._shape)
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"the server told rules that are none: {error!r}; is it dp-serve?") from error

    @property
    def has_action(self) -> bool:
        """Whether there is something to do without an answer."""
        return self.last is not None or self._safe is not None

    def placed(self, action: object) -> FloatArray:
        """Returns an action (*Da) that leaves the robot where it is: maybe beyond the limits, since it is a fact.

        Raises:
            MismatchError: it is none within the action's bounds.
        """
        return _within(self._numbers(action), *self._bounds)

    def permitted(self, action: object) -> FloatArray:
        """Returns an action (*Da) of the server's.

        One beyond the limits is permitted where the robot stands there, if it leads no further out: it leads back.

        Raises:
            MismatchError: it is none that is permitted.
        """
        found, low, high = self._numbers(action), self._low, self._high
        if self.last is not None and not self._delta and not _lies_within(found, low, high):
            low, high = np.minimum(low, self.last), np.maximum(high, self.last)
        return _within(found, low, high)

    def begin(self, here: FloatArray | None, *, moved: bool) -> None:
        """Begins an episode.

        Args:
            here: (*Da), leaves the robot where it is; None: it stands where the last action left it.
            moved: whether something else moved it since, so that nobody knows, unless `here` says it.
        """
        self.last, self.last_s = here if moved or here is not None else self.last, float("nan")

    def sent(self, action: FloatArray, time_s: float) -> None:
        """Remembers what was sent."""
        self.last, self.last_s = action, time_s

    def toward(self, action: FloatArray, time_s: float) -> FloatArray:
        """Returns the nearest action to one that limits and rate permit now, and remembers it."""
        found = self._within(action, time_s)
        self.sent(found, time_s)
        return found.copy()

    def coming(self, actions: object) -> FloatArray:
        """Returns actions (N, *Da) that the server says will be next.

        Raises:
            MismatchError: they are none, or there are too many of them.
        """
        found = np.array(actions, np.float32)
        if found.shape[1:] != self._shape or not 0 < len(found) <= MOST_SAID or not np.isfinite(found).all():
            raise MismatchError(f"expected up to {MOST_SAID} actions of {self._shape} finite numbers, but got {found}")
        return found

    def action(self, time_s: float, *, stopped: bool) -> FloatArray:
        """Returns what is sent at a time without an answer, and remembers it.

        Raises:
            ObservationError: nothing was sent yet, and no safe action is known.
        """
        if stopped and self._safe is not None:
            action = self._within(self._safe, time_s)
        elif self.last is not None:
            action = np.zeros(self._shape, np.float32) if self._delta else self._within(self.last, time_s)
        elif self._safe is not None:
            action = self._safe
        else:
            raise ObservationError(
                "there is no action to send yet, and the server does not answer; it needs an observation and a plan "
                "first, or a safe_action"
            )
        self.sent(action, time_s)
        return action.copy()

    def _within(self, wanted: FloatArray, time_s: float) -> FloatArray:
        """Returns the nearest action within limits and rate; who stands beyond the limits is led back at the rate."""
        found, low, high = wanted.astype(np.float64), self._low, self._high
        if self.last is not None:
            before = self.last.astype(np.float64)
            if self._delta:  # a change says nothing about where the robot stands
                before = np.clip(before, low, high)
            elapsed_s = self._step_s if np.isnan(self.last_s) else min(max(0.0, time_s - self.last_s), self._longest_s)
            reach = np.full(self._shape, np.inf)
            np.multiply(self._rate, elapsed_s, out=reach, where=np.isfinite(self._rate), dtype=np.float64)
            near = np.abs(found - before) <= reach
            found = np.where(near, found, before + np.clip(found - before, -reach, reach))
            low = np.minimum(low, (before + reach).astype(np.float32))
            high = np.maximum(high, (before - reach).astype(np.float32))
        return np.clip(found.astype(np.float32), low, high)

    def _numbers(self, action: object) -> FloatArray:
        try:
            found = np.array(action, np.float32)
        except (TypeError, ValueError) as error:
            raise MismatchError(f"expected an action of {self._shape} numbers, but got {action!r:.100}") from error
        if found.shape != self._shape or not np.isfinite(found).all():
            raise MismatchError(f"expected an action of {self._shape} finite numbers, but got {action}")
        return found


def _lies_within(action: FloatArray, low: FloatArray, high: FloatArray) -> bool:
    return bool(((action >= low) & (action <= high)).all())


def _within(action: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    if not _lies_within(action, low, high):
        raise MismatchError(f"expected an action within {low} and {high}, but got {action}")
    return action


def _spread(value: Any, shape: tuple[int, ...]) -> FloatArray:
    """Returns numbers, or one for all, as an array (*Da)."""
    found = np.array(value, np.float32)
    return found.reshape(shape) if found.ndim else np.full(shape, found)
