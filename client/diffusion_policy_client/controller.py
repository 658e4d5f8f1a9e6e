"""A controller whose policy is elsewhere: the calls of a `TimedController`, and a robot that is safe without answers.

Letters: Da the axes of one action.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.connector import Connector
from diffusion_policy_client.errors import MismatchError, ServerLostError
from diffusion_policy_client.link import Link
from diffusion_policy_client.observation import checked, checked_seed, checked_time
from diffusion_policy_client.records import RemoteCounts, Tick
from diffusion_policy_client.rest import Rest
from diffusion_policy_client.upkeep import Upkeep

FloatArray = NDArray[np.float32]

_ANSWER_S = 5.0  # for what is no tick and no plan


class RemoteController:
    """Acts by a policy on a server. Its methods may be called from different threads: who waits holds up nobody else.

    Where the server does not answer in time the robot is held: the last action is sent again, or none where actions are
    changes. After `lost_s` without answers, `on_lost` says what happens. Meanwhile the client connects anew, again and
    again; a stop, and where the robot stands, are carried over to the new connection, observations are not.

    Args:
        url: ws://HOST:PORT, or wss:// behind a proxy that encrypts.
        token: what the server was started with.
        obs_spec: {key: {"type": ..., "shape": ...}} that the robot has; None for whatever the server's policy reads.
            Where they do not fit, connecting raises, and names both.
        step_s: seconds from one action to the next that the robot takes for granted; None for the server's.
        planning: auto, as the server's strategy wants, or asked, on `plan` alone.
        patience_s: how long a tick waits for its answer; None: half a step.
        lost_s: seconds without answers until `on_lost` applies.
        on_lost: hold goes on holding, and ends by itself; stop goes to the server's safe action, no faster than its
            rules permit, or holds where it has none, until `release`.
        connect_s: how long connecting may take; the first time, it then raises.

    Attributes:
        obs_spec: {key: {type, shape, unit}} that `observe` takes.
        action_spec: {shape, low, high, unit, names, kind} of actions.
        welcome: all that the server said of itself.
        step_s: seconds from one action to the next.
        counts: what happened since the beginning.
        last_tick: the last one, None before the first of an episode.
        stopped: why nothing but the safe action is sent, None while all is well.
        slow: that a plan came too late for the robot to go on, in figures; None while all come in time.

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
        lost_s: float = 0.5,
        on_lost: Literal["hold", "stop"] = "hold",
        connect_s: float = 10.0,
    ) -> None:
        if on_lost not in ("hold", "stop"):
            raise MismatchError(f"on_lost: expected hold or stop, but got {on_lost!r}")
        if not lost_s > 0 or not connect_s > 0 or (patience_s is not None and not patience_s > 0):
            raise MismatchError("patience_s, lost_s and connect_s must be positive seconds")
        rate = None if step_s is None else float(step_s)
        hello = {"obs": obs_spec, "planning": planning, "step_s": rate}
        connector = Connector(url, token, hello, connect_s, patience_s)
        self._lock = threading.RLock()  # of what is known: nobody waits for an answer with it
        self._ticking = threading.Lock()
        self.counts = RemoteCounts()
        self._upkeep = Upkeep(connector, self._carried_over, self.counts, self._lock)
        self.welcome = self._upkeep.welcome
        connector.keep(self.welcome)
        self.obs_spec: dict[str, Any] = self.welcome["obs"]
        self.action_spec: dict[str, Any] = self.welcome["action"]
        self.step_s = float(self.welcome["step_s"])
        self._patience_s, self._lost_s, self._on_lost = patience_s or 0.5 * self.step_s, lost_s, on_lost
        self.last_tick: Tick | None = None
        self.stopped: str | None = None
        self._failed: str | None = None
        self.slow: str | None = None
        self._rest = Rest(self.welcome)
        self._seed: int | None = None  # of a reset that no server has heard of
        self._begun = 0  # resets and releases: an answer to what was asked before one is worth nothing
        self._unheard = False  # whether the server thinks that another action was sent than was
        self._answered_s: float | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._upkeep.connected

    @property
    def error(self) -> str | None:
        """Why there is no connection, or no plan; None while all is well."""
        return self._upkeep.error or self._failed

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
        """Returns the action for a time (*Da), within `patience_s`, whatever the server does; see `tick`."""
        return self.tick(time_s).action

    def tick(self, time_s: SupportsFloat) -> Tick:
        """Returns the action for a time with what it rests on.

        Raises:
            ObservationError: there is no action yet: no plan was there before, nor is there a safe action.
        """
        now = checked_time(time_s)
        with self._ticking:
            with self._lock:
                begun, self._answered_s = self._begun, now if self._answered_s is None else self._answered_s
                message: dict[str, Any] = {"type": "tick", "time_s": now, "stopped": self.stopped}
                if self._unheard and self._rest.last is not None:
                    message |= {"sent": self._rest.last, "sent_s": self._rest.last_s}
                question = self._upkeep.ask(message)
            answer = self._upkeep.answer(question, self._patience_s)
            with self._lock:
                tick = None if answer is None or self._begun != begun else self._answered(answer, now)
                self.last_tick = self._unanswered(now) if tick is None else tick
                return self.last_tick

    def plan(self, time_s: SupportsFloat, timeout_s: float = 60.0) -> None:
        """Lets the server make a plan from what was observed until a time, and waits for it.

        Raises:
            ObservationError: nothing was observed until then, or another episode began while it was made.
            PolicyError: the policy could not make one.
            ServerLostError: there is no connection, or no answer in time.
        """
        question = self._upkeep.ask({"type": "plan", "time_s": checked_time(time_s)})
        if self._upkeep.answer(question, timeout_s) is None:
            raise ServerLostError(self.error or f"no plan came within {timeout_s:g} s")

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
            self._rest.begin(None if at is None else self._rest.placed(at), moved=moved)
            self.last_tick, self._seed, self._answered_s, self._unheard = None, number, None, False
            self._begun += 1
            begun, question = self._begun, self._upkeep.ask(self._reset_message())
        heard = self._upkeep.answer(question, _ANSWER_S) is not None
        with self._lock:
            if heard and self._begun == begun:
                self._seed = None

    def release(self) -> None:
        """Lets the policy act again after a stop."""
        with self._lock:
            self.stopped, self._answered_s = None, None
            self._begun += 1
            question = self._upkeep.ask({"type": "release"})
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

    def _carried_over(self, link: Link) -> dict[str, Any]:
        """Returns what a new connection is told first: where the robot stands, and whether it was stopped."""
        said = self._reset_message()
        self.welcome, self._seed, self._unheard = link.welcome, None, False
        self._rest.rules(link.welcome)
        return said

    def _reset_message(self) -> dict[str, Any]:
        here = self._rest.last
        return {"type": "reset", "seed": self._seed, "at": here, "moved": here is None, "stopped": self.stopped}

    def _answered(self, answer: Mapping[str, Any], time_s: float) -> Tick | None:
        """Returns what the server said; None, and the connection is given up, where that is no permitted action."""
        try:
            action = self._rest.permitted(answer["action"])
            tick = Tick(
                time_s, action.copy(), False, answer["observed_s"], answer["plan_start_s"], answer["starved"],
                answer["stopped"],
            )  # fmt: skip
            self._failed, self.slow = answer["failed"], self.slow or answer["slow"]
        except (MismatchError, KeyError, TypeError) as error:
            self._upkeep.lose(f"the server said something else than an action: {error}")
            return None
        self._answered_s = time_s
        if self.stopped is not None and tick.stopped is None:
            return None  # a stop stands until `release`, whether the server knows of it or not
        self.counts.answered += 1
        self._unheard, self.stopped = False, self.stopped or tick.stopped
        self._rest.sent(action, time_s)
        return tick

    def _unanswered(self, time_s: float) -> Tick:
        answered_s = time_s if self._answered_s is None else self._answered_s
        if self.last_tick is not None and not self.last_tick.held:  # while nobody asked, nobody was silent
            self._answered_s = answered_s = max(answered_s, time_s - self.step_s)
        silent_s = time_s - answered_s
        if self._on_lost == "stop" and self.stopped is None and silent_s >= self._lost_s:
            self.stopped = f"the server did not answer for {silent_s:.3g} s"
        action = self._rest.action(time_s, stopped=self.stopped is not None)
        self.counts.held += 1
        self._unheard = True
        return Tick(time_s, action, True, None, None, True, self.stopped)
