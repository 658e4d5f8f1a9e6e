"""What a robot does at a tick: as the server answers, as it said before that it would, or by the rules alone.

Letters: Da the axes of one action, N actions.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.errors import MismatchError
from diffusion_policy_client.records import RemoteCounts, Tick
from diffusion_policy_client.rest import Rest

FloatArray = NDArray[np.float32]

_PAUSE = 0.5  # part of `lost_s`: for longer between two ticks, the robot's loop stood still
_ROUNDING = 1e-3  # part of a step by which a tick may be early and count as in time; sums of steps round


class Said(NamedTuple):
    """What the server says of later ticks.

    Args:
        time_s: of the tick that was answered.
        actions: (N, *Da), what is wanted, one step apart.
        start_s: from when the first is for.
        observed_s: see `Tick`.
        plan_start_s: likewise.
    """

    time_s: float
    actions: FloatArray
    start_s: float
    observed_s: float | None
    plan_start_s: float | None

    def action(self, time_s: float, step_s: float) -> FloatArray | None:
        """Returns the one for a time (*Da), None where there is none."""
        steps = (time_s - self.start_s) / step_s + _ROUNDING
        return self.actions[int(steps)] if 0 <= steps < len(self.actions) else None


class Conduct:
    """Decides the ticks of one robot. Knows no network; whoever calls sees to it that one thread at a time is here.

    Args:
        welcome: what the server said of itself.
        counts: of ticks.
        lost_s: seconds without answers until `on_lost` applies.
        on_lost: hold or stop; see `RemoteController`.
        goes_on: whether what the server said before is done where an answer comes late.

    Attributes:
        rest: the rules, and the last action.
        last_tick: the last one, None before the first of an episode.
        stopped: why nothing but the safe action is sent, None while all is well.
        failed: why there will be no plan, None while there will.
        slow: that a plan came too late for the robot to go on; None while all come in time.
    """

    def __init__(
        self,
        welcome: Mapping[str, Any],
        counts: RemoteCounts,
        *,
        lost_s: float,
        on_lost: Literal["hold", "stop"],
        goes_on: bool,
    ) -> None:
        self.rest, self.last_tick = Rest(welcome), None  # type: Rest, Tick | None
        self.stopped: str | None = None
        self.failed: str | None = None
        self.slow: str | None = None
        self._counts, self._step_s = counts, float(welcome["step_s"])
        self._lost_s, self._on_lost, self._goes_on = lost_s, on_lost, goes_on
        self._unheard = False  # whether the last tick had no answer in time: the server is told what was sent
        self._asked_s: float | None = None  # time of the last tick
        self._answered_s: float | None = None  # of the last one with an answer, later by the pauses of the loop since
        self._said: Said | None = None

    def question(self, time_s: float) -> dict[str, Any]:
        """Returns what the server is asked at a tick."""
        if self._asked_s is None or self._answered_s is None:
            self._answered_s = time_s
        elif time_s - self._asked_s > _PAUSE * self._lost_s:  # while nobody asked, nobody was silent
            self._answered_s += time_s - self._asked_s - self._step_s
        self._asked_s = time_s
        message: dict[str, Any] = {"type": "tick", "time_s": time_s, "stopped": self.stopped}
        if self._unheard and self.rest.last is not None:
            message |= {"sent": self.rest.last, "sent_s": self.rest.last_s}
        return message

    def knows(self, time_s: float) -> bool:
        """Whether the server said before what it will answer, unless it learns something new."""
        return self._foreseen(time_s) is not None

    def answered(self, answer: Mapping[str, Any], time_s: float) -> Tick | None:
        """Returns what the server said; None where it knows of no stop, and there is one.

        Raises:
            MismatchError: that is no permitted action.
        """
        try:
            action = self.rest.permitted(answer["action"])
            tick = Tick(
                time_s, action.copy(), False, answer["observed_s"], answer["plan_start_s"], answer["starved"],
                answer["stopped"],
            )  # fmt: skip
            self._take(answer, time_s)
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"the server said something else than an action: {error}") from error
        if self.stopped is not None and tick.stopped is None:
            return None  # a stop stands until `release`, whether the server knows of it or not
        self._counts.answered += 1
        self._unheard, self.stopped = False, self.stopped or tick.stopped
        self.rest.sent(action, time_s)
        self.last_tick = tick
        return tick

    def late(self, answer: Mapping[str, Any]) -> None:
        """Takes what the answer to an earlier tick says of the server, and that it stopped.

        Raises:
            MismatchError: it is no answer to a tick.
        """
        try:
            self._take(answer, float(answer["time_s"]))
            self.stopped = self.stopped or answer["stopped"]
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"the server said something else than an action: {error}") from error

    def told(self, ahead: Mapping[str, Any]) -> None:
        """Takes what the server says of later ticks.

        Raises:
            MismatchError: it is none of that.
        """
        try:
            time_s, self._said = self._heard(float(ahead["time_s"])), None
            if ahead["next"] is not None and self._goes_on:
                actions, start_s = self.rest.coming(ahead["next"]), float(ahead["next_s"])
                self._said = Said(time_s, actions, start_s, ahead["observed_s"], ahead["plan_start_s"])
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"the server said something else than what is next: {error}") from error

    def unanswered(self, time_s: float, *, connected: bool) -> Tick:
        """Returns what is done without an answer; where the connection has ended, that is by the rules alone.

        Raises:
            ObservationError: there is no action yet: no plan was there before, nor is there a safe action.
        """
        action = self._foreseen(time_s) if connected else None
        if action is None or self._said is None:
            self.last_tick = self._alone(time_s)
        else:
            said, sent = self._said, self.rest.toward(action, time_s)
            self.last_tick = Tick(time_s, sent, False, said.observed_s, said.plan_start_s, False, None, ahead=True)
            self._counts.ahead += 1
        self._unheard = True
        return self.last_tick

    def begin(self, here: FloatArray | None, *, moved: bool) -> None:
        """Begins an episode; see `Rest.begin`. A stop stays one."""
        self.rest.begin(here, moved=moved)
        self.last_tick = self._asked_s = self._answered_s = self._said = None
        self._unheard = False

    def release(self) -> None:
        """Ends a stop."""
        self.stopped = self._asked_s = self._answered_s = self._said = None

    def meet(self, welcome: Mapping[str, Any]) -> None:
        """Takes the rules of another server, which is told where the robot stands."""
        self.rest.rules(welcome)
        self._unheard, self._said = False, None

    def _take(self, answer: Mapping[str, Any], time_s: float) -> None:
        """Takes what the answer to the tick of a time says beside its action."""
        for name in ("stopped", "failed", "slow"):
            if not isinstance(answer[name], (str, type(None))):
                raise TypeError(f"{name} is no text")
        self._answered_s = max(self._heard(time_s), -np.inf if self._answered_s is None else self._answered_s)
        self.failed, self.slow = answer["failed"], self.slow or answer["slow"]
        said = self._said
        if said is not None and said.time_s < time_s and not self._is_as_told(answer, said, time_s):
            self._said = None  # what comes next now is told behind this answer, if that arrives

    def _is_as_told(self, answer: Mapping[str, Any], said: Said, time_s: float) -> bool:
        """Whether an answer is of the plan that was told before, and its action the one of that time."""
        if answer["plan_start_s"] != said.plan_start_s or answer["starved"] or answer["failed"] is not None:
            return False
        action = said.action(time_s, self._step_s)
        return action is not None and np.array_equal(answer["action"], action)

    def _heard(self, time_s: float) -> float:
        """Returns the time of a tick that the server speaks of; raises ValueError where there was none."""
        if self._asked_s is not None and not time_s <= self._asked_s:
            raise ValueError(f"it is of {time_s}, after the last tick")
        return time_s

    def _foreseen(self, time_s: float) -> FloatArray | None:
        """Returns the action that the server said for a time (*Da), None where there is none, or it is long ago."""
        said = self._said
        if said is None or self.stopped is not None or not said.time_s <= time_s < said.time_s + self._lost_s:
            return None
        return said.action(time_s, self._step_s)

    def _alone(self, time_s: float) -> Tick:
        """Holds the robot, or stops it where the server was silent for long."""
        silent_s = 0.0 if self._answered_s is None else time_s - self._answered_s
        if self._on_lost == "stop" and self.stopped is None and silent_s >= self._lost_s:
            self.stopped = f"the server did not answer for {silent_s:.3g} s"
        action = self.rest.action(time_s, stopped=self.stopped is not None)
        self._counts.held += 1
        return Tick(time_s, action, True, None, None, True, self.stopped)
