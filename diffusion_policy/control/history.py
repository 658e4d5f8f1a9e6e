"""What was observed when, and what a policy sees of it: observations one step apart, as in training.

Letters: To obs_horizon.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffusion_policy.config import ObsSpec
from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.policies.observation_check import check_finite, check_observation

_SAME = 1e-3
"""Observations closer than this part of a step are of one time."""
_KEPT = 4096
"""Observations at most, whatever their times: a sensor's clock may be wrong."""

_WITNESSES = 5
"""Latest arrivals whose median tells the time where nobody asks: two wrong stamps among them are outvoted."""

_LATEST_S = 1e15
"""Beyond, differences of times would overflow when they are counted in steps."""

Admits = Callable[[dict[str, Array]], bool]
"""Whether an observation {key: (*shape)} may be taken."""


@dataclass
class ObservationCounts:
    """What came in other order than a robot's clock would have it.

    Args:
        taken: observations that came in time.
        late: older than the newest, but still of use: put in their place.
        dropped: so old that no window reaches them any more.
        repeated: of a time that was there already: the later one stands.
        missed: places of windows for which another observation stood, because that time's never came.
    """

    taken: int = 0
    late: int = 0
    dropped: int = 0
    repeated: int = 0
    missed: int = 0


class ObservationHistory:
    """Observations with their times, in the order of these times whatever order they came in.

    Args:
        obs_spec: what the policy reads.
        obs_horizon: To.
        step_s: seconds between the observations of a window.

    Attributes:
        counts: what happened so far.
    """

    def __init__(self, obs_spec: ObsSpec, obs_horizon: int, step_s: float) -> None:
        self._spec, self._horizon, self._step = obs_spec, obs_horizon, step_s
        self._times: list[float] = []
        self._observations: list[dict[str, Array]] = []
        self._now = -np.inf  # the latest time that somebody asked about
        self._first_s = np.inf  # time of the first observation of all
        self._arrived: deque[float] = deque(maxlen=_WITNESSES)  # times of the latest arrivals
        self.counts = ObservationCounts()

    def __len__(self) -> int:
        """Returns how many observations are kept."""
        return len(self._times)

    def newest(self, time_s: float) -> tuple[float, dict[str, Array]] | None:
        """Returns the newest observation that is not later than a time, with its own; None where there is none.

        One from a future that has not come is kept for then, whatever clock stamped it, and hides nothing.
        """
        self._now = max(self._now, time_s)
        known = bisect_right(self._times, time_s + _SAME * self._step)
        return (self._times[known - 1], self._observations[known - 1]) if known else None

    def add(self, obs: object, time_s: float, admits: Admits | None = None) -> None:
        """Takes an observation; a refused one changes nothing.

        Args:
            obs: {key: (*shape)} of one robot.
            time_s: when it was measured, seconds on any clock that only goes forward.
            admits: decides about observations of the right form; None refuses those that are not finite.

        Raises:
            ObservationError: wrong key, shape or dtype, a time that is not finite, or, without `admits`, a number.
        """
        checked_time(time_s)
        arrays, single = check_observation(obs, self._spec)
        if not single:
            raise ObservationError("expected the observation of one robot, without a leading axis of several")
        if admits is None:
            check_finite(arrays, np.ones(1, bool))
        taken = {key: array[0].copy() for key, array in arrays.items()}
        if admits is None or admits(taken):
            self._put(taken, float(time_s))

    def _put(self, obs: dict[str, Array], time_s: float) -> None:
        tolerance = _SAME * self._step
        place = bisect_left(self._times, time_s - tolerance)
        if place < len(self._times) and abs(self._times[place] - time_s) <= tolerance:
            self._observations[place] = obs
            self.counts.repeated += 1
            return
        self._arrived.append(time_s)
        settled = self._settled_s()
        if time_s < settled - self._reach():
            self.counts.dropped += 1
            return
        late = place < len(self._times) and self._times[place] <= self._now
        self.counts.late += late
        self.counts.taken += not late
        self._first_s = min(self._first_s, time_s)
        self._times.insert(place, time_s)
        self._observations.insert(place, obs)
        oldest = max(bisect_left(self._times, settled - self._reach()), len(self._times) - _KEPT)
        del self._times[:oldest], self._observations[:oldest]

    def _settled_s(self) -> float:
        """Returns a time that has come, as far as is known without a clock: what is long before it is of no use.

        Somebody asked about it and there is an observation, or most of what came last is from it or later: one
        observation alone may have a wrong stamp.
        """
        asked = min(self._now, self._times[-1] if self._times else -np.inf)
        return max(asked, sorted(self._arrived)[(len(self._arrived) - 1) // 2])

    def _reach(self) -> float:
        """Returns how many seconds before now are kept: a window, and as much again."""
        return 2 * self._horizon * self._step

    def window(self, time_s: float) -> dict[str, Array] | None:
        """Returns what the policy sees at a time, {key: (To, *shape)}, oldest first; None before the first observation.

        Each place holds the observation nearest to its time, of those not later than half a step behind it, nor later
        than `time_s`; at an episode's beginning, the first one. One that is more than a step older than its place
        counts as missed, and one that is a step older than all of the window is not used: after a gap, the first one
        behind it fills the places before, as at an episode's beginning, and each of them counts as missed.
        """
        self._now = max(self._now, time_s)
        known = bisect_right(self._times, time_s + _SAME * self._step)
        if not known:
            return None
        oldest = bisect_left(self._times, time_s - self._step * (self._horizon + _SAME), 0, known)
        oldest = min(oldest, known - 1)  # who asks for a window of long ago is told the newest of then
        chosen = []
        for back in reversed(range(self._horizon)):
            wanted = time_s - back * self._step
            at = max(oldest, self._nearest(wanted, known))
            apart = self._times[at] - wanted
            filled = apart > 0.5 * self._step and wanted > self._first_s + _SAME * self._step
            self.counts.missed += filled or apart < -self._step * (1 + _SAME)
            chosen.append(self._observations[at])
        return {key: np.stack([obs[key] for obs in chosen]) for key in self._spec}

    def _nearest(self, wanted: float, known: int) -> int:
        """Returns the number of the observation, of the first `known`, for a place at time `wanted`."""
        after = bisect_right(self._times, wanted, 0, known)
        if not after:
            return 0
        newer = self._times[after] - wanted if after < known else np.inf
        return after if newer < min(wanted - self._times[after - 1], 0.5 * self._step) else after - 1


def checked_time(time_s: float) -> float:
    """Returns a time that robots live in.

    Raises:
        ObservationError: it is not finite, or so large that steps cannot be counted.
    """
    if not abs(time_s) <= _LATEST_S:
        raise ObservationError(f"a time must be finite seconds, at most {_LATEST_S:g}, but got {time_s}")
    return time_s
