"""A controller whose policy is elsewhere: the calls of a `TimedController`, and a robot that is safe without answers.

Letters: Da the axes of one action.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.conduct import Conduct
from diffusion_policy_client.connector import Connector
from diffusion_policy_client.errors import MismatchError, ServerLostError
from diffusion_policy_client.link import Link
from diffusion_policy_client.observation import checked, checked_seed, checked_time
from diffusion_policy_client.records import RemoteCounts, Tick
from diffusion_policy_client.upkeep import Upkeep

FloatArray = NDArray[np.float32]

_ANSWER_S = 5.0  # for what is no tick and no plan


class RemoteController:
    """Acts by a policy on a server. Its methods may be called from different threads: who waits holds up nobody else.

    Behind each answer the server tells what the plan wants next. Where an answer comes late, the robot goes on by that;
    where it says no more, or the connection has ended, the robot is held: the last action is sent again, or none where
    actions are changes. After `lost_s` without answers, `on_lost` says what happens. Meanwhile the
    client connects anew, again and again; a stop, and where the robot stands, are carried over to the new connection,
    observations are not.

    Args:
        url: ws://HOST:PORT, or wss:// behind a proxy that encrypts.
        token: what the server was started with.
        obs_spec: {key: {"type": ..., "shape": ...}} that the robot has; None for whatever the server's policy reads.
            Where they do not fit, connecting raises, and names both.
        step_s: seconds from one action to the next that the robot takes for granted; None for the server's.
        planning: auto, as the server's strategy wants, or asked, on `plan` alone.
        patience_s: how long a tick waits for its answer; None: half a step. The first action, for which the robot
            stands still, it waits for `lost_s` where that is longer.
        prompt_s: how long at most where the server told before what to do. None: nothing is done by that.
        lost_s: seconds without answers until `on_lost` applies, and for which the robot goes on by what was said.
        on_lost: hold goes on holding, and ends by itself; stop goes to the server's safe action, no faster than its
            rules permit, or holds where it has none, until `release`.
        connect_s: how long connecting may take; the first time, it then raises.

    Attributes:
        obs_spec: {key: {type, shape, unit}} that `observe` takes.
        action_spec: {shape, low, high, unit, names, kind} of actions.
        welcome: all that the server said of itself.
        step_s: seconds from one action to the next.
        counts: what happened since the beginning.

    Raises:
        ServerLostError: there is no server.
        MismatchError: it does not fit, and says why.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        obs_spec: Mapping[str, Mapping[str, Any]] | None = None,
        step_s: float | None = None,
        planning: Literal["auto", "asked"] = "auto",
        patience_s: float | None = None,
        prompt_s: float | None = 0.005,
        lost_s: float = 0.5,
        on_lost: Literal["hold", "stop"] = "hold",
        connect_s: float = 10.0,
    ) -> None:
        if on_lost not in ("hold", "stop"):
            raise MismatchError(f"on_lost: expected hold or stop, but got {on_lost!r}")
        waits = [lost_s, connect_s, *(each for each in (patience_s, prompt_s) if each is not None)]
        if not all(each > 0 for each in waits):
            raise MismatchError("patience_s, prompt_s, lost_s and connect_s must be positive seconds")
        rate = None if step_s is None else float(step_s)
        hello = {"obs": obs_spec, "planning": planning, "step_s": rate}
        connector = Connector(url, token, hello, connect_s, patience_s)
        self._lock = threading.RLock()  # of what is known: nobody waits for an answer with it
        self._ticking = threading.Lock()
        self.counts = RemoteCounts()
        self._upkeep = Upkeep(connector, self._carried_over, self.counts, self._lock, self._late)
        self.welcome = self._upkeep.welcome
        connector.keep(self.welcome)
        self.obs_spec: dict[str, Any] = self.welcome["obs"]
        self.action_spec: dict[str, Any] = self.welcome["action"]
        self.step_s = float(self.welcome["step_s"])
        self._patience_s, self._prompt_s, self._lost_s = patience_s or 0.5 * self.step_s, prompt_s or np.inf, lost_s
        self._conduct = Conduct(self.welcome, self.counts, lost_s=lost_s, on_lost=on_lost, goes_on=prompt_s is not None)
        self._seed: int | None = None  # of a reset that no server has heard of
        self._heard = 0  # number of the last tick behind whose answer it was told what is next
        self._planned = 0  # number of what was asked before a plan came that somebody waited for
        self._since = 0  # number of the last reset or release: an answer to what was asked before is worth nothing

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._upkeep.connected

    @property
    def last_tick(self) -> Tick | None:
        """The last one, None before the first of an episode."""
        return self._conduct.last_tick

    @property
    def stopped(self) -> str | None:
        """Why nothing but the safe action is sent, None while all is well; who sets it stops the robot."""
        return self._conduct.stopped

    @stopped.setter
    def stopped(self, why: str) -> None:
        with self._lock:
            self._conduct.stopped = why

    @property
    def slow(self) -> str | None:
        """That a plan came too late for the robot to go on, in figures; None while all come in time."""
        return self._conduct.slow

    @property
    def error(self) -> str | None:
        """Why there is no connection, or no plan; None while all is well."""
        return self._upkeep.error or self._conduct.failed

    @property
    def refused(self) -> str | None:
        """What the server said of the last observation that it did not take; None while it takes all."""
        return self._upkeep.refused

    def observe(self, obs: object, time_s: SupportsFloat) -> None:
        """Sends an observation, and waits for nothing.

        Without a connection it is dropped, and counted; so are older ones that still wait to be sent where the network
        is too slow for all. One that the server does not take is counted, too, and `refused` says why.

        Args:
            obs: {key: (*shape)}, as `obs_spec` says; further keys are not sent.
            time_s: when it was measured, seconds on any clock that only goes forward.

        Raises:
            ObservationError: wrong key, shape or dtype, or the time is none.
        """
        taken = checked(obs, self.obs_spec)
        message = {"type": "observe", "time_s": checked_time(time_s), "obs": taken}
        with self._lock:
            self._upkeep.observe(message)

    def action_at(self, time_s: SupportsFloat) -> FloatArray:
        """Returns the action for a time (*Da), within `patience_s`, whatever the server does; see `tick`.

        The first one, for which the robot stands still, may take `lost_s`.
        """
        return self.tick(time_s).action

    def tick(self, time_s: SupportsFloat) -> Tick:
        """Returns the action for a time with what it rests on.

        Raises:
            ObservationError: there is no action yet: no plan was there before, nor is there a safe action.
            ClientError: the server says that this robot's question is none.
        """
        now = checked_time(time_s)
        with self._ticking:
            with self._lock:
                since, question = self._since, self._upkeep.ask(self._conduct.question(now))
                patience_s = self._patience()
            prompt_s = min(patience_s, self._prompt_s)
            answer = self._upkeep.answer(
                question, prompt_s, lambda: 0.0 if self._goes_on(now) else patience_s - prompt_s
            )
            if answer is None and not self._conduct.knows(now):  # a late one is of use where it tells what is next
                self._upkeep.withdraw(question)
            with self._lock:
                is_of_now = self._since == since and self._upkeep.is_current(question)
                tick = self._answered(answer, now) if answer is not None and is_of_now else None
                return tick or self._conduct.unanswered(now, connected=self._upkeep.connected)

    def plan(self, time_s: SupportsFloat, timeout_s: float = 60.0) -> None:
        """Lets the server make a plan from what was observed until a time, and waits for it.

        Raises:
            ObservationError: nothing was observed until then, or another episode began while it was made.
            PolicyError: the policy could not make one.
            ServerLostError: there is no connection, or no answer in time.
        """
        question = self._upkeep.ask({"type": "plan", "time_s": checked_time(time_s)})
        if self._upkeep.answer(question, timeout_s) is None:
            self._upkeep.withdraw(question)
            raise ServerLostError(self.error or f"no plan came within {timeout_s:g} s")
        with self._lock:
            self._planned = self._upkeep.asked

    def reset(self, seed: SupportsIndex | None = None, at: FloatArray | None = None, *, moved: bool = False) -> None:
        """Begins a new episode; see `TimedController.reset`. A stop stays one, until `release`.

        Without a connection the next one begins with it.

        Args:
            seed: fixes all the noise; None draws fresh entropy.
            at: (*Da), the action that would leave the robot where it is; rates count from there. It may be beyond the
                limits, and the robot is brought back then. None: it stands where the last action left it.
            moved: whether something else moved it since, and nobody knows where to.

        Raises:
            MismatchError: `at` is beyond the action's bounds or no action, or the seed no whole number.
        """
        number = checked_seed(seed)
        with self._lock:
            self._conduct.begin(None if at is None else self._conduct.rest.placed(at), moved=moved)
            self._seed = number
            question = self._upkeep.ask(self._reset_message())
            self._since = since = self._upkeep.asked
        heard = self._upkeep.answer(question, _ANSWER_S) is not None
        with self._lock:
            if heard and self._since == since:
                self._seed = None

    def release(self) -> None:
        """Lets the policy act again after a stop."""
        with self._lock:
            self._conduct.release()
            question = self._upkeep.ask({"type": "release"})
            self._since = self._upkeep.asked
        self._upkeep.answer(question, _ANSWER_S)

    def close(self) -> None:
        """Ends the connection, for good."""
        self._upkeep.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _patience(self) -> float:
        """Returns how long a tick waits at most: long where the robot stands still for it."""
        return self._patience_s if self._conduct.rest.has_action else max(self._patience_s, self._lost_s)

    def _goes_on(self, time_s: float) -> bool:
        """Whether a tick waits no longer, since it was told what to do; not before a plan that somebody asked for."""
        with self._lock:
            return self._conduct.knows(time_s) and self._heard > self._planned

    def _carried_over(self, link: Link) -> dict[str, Any]:
        """Returns what a new connection is told first: where the robot stands, and whether it was stopped."""
        said = self._reset_message()
        self.welcome, self._seed = link.welcome, None
        self._conduct.meet(link.welcome)
        return said

    def _reset_message(self) -> dict[str, Any]:
        here = self._conduct.rest.last
        return {"type": "reset", "seed": self._seed, "at": here, "moved": here is None, "stopped": self.stopped}

    def _answered(self, answer: Mapping[str, Any], time_s: float) -> Tick | None:
        """Returns what the server said; None, and the connection is given up, where that is no permitted action."""
        try:
            return self._conduct.answered(answer, time_s)
        except MismatchError as error:
            self._upkeep.lose(str(error))
            return None

    def _late(self, answer: Mapping[str, Any]) -> None:
        """Takes an answer for which nobody waits any more, or what comes behind one; called with the lock held."""
        is_ahead = answer["type"] == "ahead"
        number = answer.get("of" if is_ahead else "id")
        if not isinstance(number, int):
            self._upkeep.lose(f"the server spoke of tick {number!r:.40}")
        if not isinstance(number, int) or number <= self._since or not (is_ahead or answer["type"] == "action"):
            return
        try:
            if is_ahead:
                self._heard = number
                self._conduct.told(answer)
            else:
                self._conduct.late(answer)
        except MismatchError as error:
            self._upkeep.lose(str(error))
