"""A controller whose policy is elsewhere: the calls of a `TimedController`, and a robot that is safe without answers.

Letters: Da the axes of one action.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_client.errors import ClientError, MismatchError, ObservationError, PolicyError, ServerLostError
from diffusion_policy_client.link import Link
from diffusion_policy_client.protocol import described
from diffusion_policy_client.rest import Rest

FloatArray = NDArray[np.float32]

_RETRY_S = (0.05, 2.0)  # the first pause between attempts to reconnect, and the longest
_ANSWER_S = 5.0  # for what is no tick and no plan


@dataclass
class RemoteCounts:
    """What became of ticks and connections.

    Args:
        answered: ticks that the server answered in time.
        held: ticks that it did not: the robot was held, or went to the safe action.
        late: answers that came when nobody waited any more: dropped.
        lost: connections that ended.
        reconnected: connections that were made anew.
        unsent: observations that no server took.
    """

    answered: int = 0
    held: int = 0
    late: int = 0
    lost: int = 0
    reconnected: int = 0
    unsent: int = 0


@dataclass(frozen=True, eq=False)
class Tick:
    """One action, and what it rests on.

    Args:
        time_s: of the action.
        action: (*Da), to be sent.
        held: whether the server did not answer in time, and this client decided.
        observed_s: time of the newest observation that the server had; None before the first, and where it is silent.
        plan_start_s: time for which the newest plan's first action was; likewise.
        starved: whether no plan had an action.
        stopped: why nothing but the safe action is sent, None while all is well.
    """

    time_s: float
    action: FloatArray
    held: bool
    observed_s: float | None
    plan_start_s: float | None
    starved: bool
    stopped: str | None


class RemoteController:
    """Acts by a policy on a server. Calls from several threads wait for each other.

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
        error: why there is no connection, or no plan; None while all is well.

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
        self._url, self._token, self._connect_s = url, token, connect_s
        self._hello: dict[str, Any] = {"client": _name(), "obs": obs_spec, "step_s": step_s, "planning": planning}
        self._send_s = patience_s or 0.5
        self._link: Link | None = self._connected()
        self.welcome = self._link.welcome
        self.obs_spec: dict[str, Any] = self.welcome["obs"]
        self.action_spec: dict[str, Any] = self.welcome["action"]
        self.step_s = float(self.welcome["step_s"])
        self._hello |= {"obs": self.obs_spec, "step_s": self.step_s}
        self._patience_s, self._lost_s, self._on_lost = patience_s or 0.5 * self.step_s, lost_s, on_lost
        self.counts = RemoteCounts()
        self.last_tick: Tick | None = None
        self.stopped: str | None = None
        self.error: str | None = None
        self._rest = Rest(self.welcome)
        self._lock, self._closed = threading.RLock(), threading.Event()
        self._number = 0
        self._seed: int | None = None  # of a reset that no server has heard of
        self._unheard = False  # whether the server thinks that another action was sent than was
        self._answered_s: float | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    def observe(self, obs: object, time_s: float) -> None:
        """Sends an observation; without a connection it is dropped, and counted.

        Args:
            obs: {key: (*shape)}, as `obs_spec` says; further keys are not sent.
            time_s: when it was measured, seconds on any clock that only goes forward.

        Raises:
            ObservationError: wrong key, shape or dtype, or the time is no number.
        """
        taken = checked(obs, self.obs_spec)
        message = {"type": "observe", "time_s": _finite(time_s), "obs": taken}
        with self._lock:
            if self._link is None or not self._sent(self._link, message):
                self.counts.unsent += 1

    def action_at(self, time_s: float) -> FloatArray:
        """Returns the action for a time (*Da), within `patience_s`, whatever the server does; see `tick`."""
        return self.tick(time_s).action

    def tick(self, time_s: float) -> Tick:
        """Returns the action for a time with what it rests on.

        Raises:
            ObservationError: there is no action yet: no plan was there before, nor is there a safe action.
        """
        _finite(time_s)
        with self._lock:
            self._answered_s = time_s if self._answered_s is None else self._answered_s
            question: dict[str, Any] = {"type": "tick", "time_s": time_s}
            if self._unheard and self._rest.last is not None:
                question |= {"sent": self._rest.last, "sent_s": self._rest.last_s}
            link, answer = self._link, self._asked(question, self._patience_s)
            tick = None if answer is None or link is None else self._answered(link, answer, time_s)
            self.last_tick = self._unanswered(time_s) if tick is None else tick
            return self.last_tick

    def plan(self, time_s: float, timeout_s: float = 60.0) -> None:
        """Lets the server make a plan from what was observed until a time, and waits for it.

        Raises:
            ObservationError: nothing was observed until then.
            PolicyError: the policy could not make one.
            ServerLostError: there is no connection, or no answer in time.
        """
        with self._lock:
            if self._asked({"type": "plan", "time_s": _finite(time_s)}, timeout_s) is None:
                raise ServerLostError(self.error or f"no plan came within {timeout_s:g} s")

    def reset(self, seed: int | None = None, at: FloatArray | None = None) -> None:
        """Begins a new episode; see `TimedController.reset`. A stop stays one, until `release`.

        Without a connection the next one begins with it.

        Args:
            seed: fixes all the noise; None draws fresh entropy.
            at: (*Da), the action that would leave the robot where it is; rates count from there. None: unknown.

        Raises:
            MismatchError: `at` is no action that is permitted.
        """
        with self._lock:
            here = None if at is None else self._rest.checked(at)
            self._rest.begin(here)
            self.last_tick, self._seed, self._answered_s, self._unheard = None, seed, None, False
            if self._asked(self._reset_message(), _ANSWER_S) is not None:
                self._seed = None

    def release(self) -> None:
        """Lets the policy act again after a stop."""
        with self._lock:
            self.stopped, self._answered_s = None, None
            self._asked({"type": "release"}, _ANSWER_S)

    def close(self) -> None:
        """Ends the connection, for good."""
        self._closed.set()
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connected(self) -> Link:
        link = Link(self._url, self._token, self._hello, self._connect_s, self._send_s)
        try:
            Rest(link.welcome)  # its rules must be some
        except ClientError:
            link.close()
            raise
        return link

    def _reset_message(self) -> dict[str, Any]:
        return {"type": "reset", "seed": self._seed, "at": self._rest.here(), "stopped": self.stopped}

    def _sent(self, link: Link, message: dict[str, Any]) -> bool:
        try:
            link.send(message)
        except ServerLostError as error:
            self._lose(link, str(error))
            return False
        return True

    def _asked(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Returns the answer to a question, None if there is none in time; called with the lock held.

        Raises:
            ClientError: the answer is that this is not possible.
        """
        until, link = time.monotonic() + timeout_s, self._link
        self._number += 1
        if link is None or not self._sent(link, {**message, "id": self._number}):
            return None
        while True:
            try:
                answer = link.receive(until - time.monotonic())
            except ServerLostError as error:
                self._lose(link, str(error))
                return None
            if answer is None:
                return None
            if answer["type"] == "error" and answer.get("id") in (self._number, None):
                kinds: dict[Any, type[ClientError]] = {"config": MismatchError, "policy": PolicyError}
                raise kinds.get(answer.get("kind"), ObservationError)(str(answer.get("message")))
            if answer.get("id") == self._number:
                return answer
            self.counts.late += 1

    def _answered(self, link: Link, answer: Mapping[str, Any], time_s: float) -> Tick | None:
        """Returns what the server said; None, and the connection is given up, where that is no permitted action."""
        try:
            action = self._rest.checked(answer["action"])
            tick = Tick(
                time_s, action.copy(), False, answer["observed_s"], answer["plan_start_s"], answer["starved"],
                answer["stopped"],
            )  # fmt: skip
            self.error = answer["failed"]
        except (MismatchError, KeyError, TypeError) as error:
            self._lose(link, f"the server said something else than an action: {error}")
            return None
        self.counts.answered += 1
        self._answered_s, self._unheard, self.stopped = time_s, False, tick.stopped
        self._rest.sent(action, time_s)
        return tick

    def _unanswered(self, time_s: float) -> Tick:
        silent_s = time_s - (time_s if self._answered_s is None else self._answered_s)
        if self._on_lost == "stop" and self.stopped is None and silent_s >= self._lost_s:
            self.stopped = f"the server did not answer for {silent_s:.3g} s"
        action = self._rest.action(time_s, stopped=self.stopped is not None)
        self.counts.held += 1
        self._unheard = True
        return Tick(time_s, action, True, None, None, True, self.stopped)

    def _lose(self, link: Link, why: str) -> None:
        """Gives a connection up and begins to make another; called with the lock held."""
        if self._link is not link:
            return
        self._link, self.error = None, why
        self.counts.lost += 1
        threading.Thread(target=self._reconnect, args=(link,), name="reconnect", daemon=True).start()

    def _reconnect(self, old: Link) -> None:
        old.close()
        pause, longest = _RETRY_S
        while not self._closed.wait(pause):
            pause = min(2 * pause, longest)
            try:
                link = self._connected()
            except ClientError as error:
                self.error = str(error)
                continue
            if link.welcome["action"] != self.action_spec:
                self.error = f"{self._url} has another policy now: its action is {link.welcome['action']}, it was "
                self.error += f"{self.action_spec} with observations {described(self.obs_spec)}"
                link.close()
                continue
            if self._taken(link):
                return

    def _taken(self, link: Link) -> bool:
        """Puts a new connection in the place of the lost one; returns whether there is nothing left to do."""
        with self._lock:
            if self._closed.is_set():
                link.close()
                return True
            try:  # its answer is dropped as a late one: ticks do not wait for it
                link.send({**self._reset_message(), "id": 0})
            except ServerLostError as error:
                self.error = str(error)
                link.close()
                return False
            self._link, self.error, self._seed, self._unheard = link, None, None, False
            self.welcome = link.welcome
            self._rest.rules(link.welcome)
            self.counts.reconnected += 1
            return True


def checked(obs: object, spec: Mapping[str, Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Returns the fields of an observation that a policy reads, float32 or (pictures) uint8.

    Args:
        obs: {key: (*shape)}.
        spec: {key: {type, shape}}.

    Raises:
        ObservationError: a key is missing, or a field has another shape or dtype.
    """
    if not isinstance(obs, Mapping) or not set(spec) <= set(obs):
        got = ", ".join(map(str, obs)) if isinstance(obs, Mapping) else type(obs).__name__
        raise ObservationError(f"expected an observation with {described(spec)}, but got {got or 'nothing'}")
    found = {}
    for key, field in spec.items():
        array = np.asarray(obs[key])
        picture, shape = field["type"] == "rgb", tuple(field["shape"])
        if array.shape != shape or (array.dtype != np.uint8 if picture else array.dtype.kind not in "fiu"):
            kind = "uint8 pixels 0-255" if picture else "numbers"
            raise ObservationError(f"observation '{key}' must be {shape} {kind}, but got {array.shape} {array.dtype}")
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and the server's rules say what then
            found[key] = array if picture else array.astype(np.float32)
    return found


def _finite(time_s: float) -> float:
    if not np.isfinite(time_s):
        raise ObservationError(f"a time must be finite seconds, but got {time_s}")
    return float(time_s)


def _name() -> str:
    from diffusion_policy_client import __version__

    return f"diffusion-policy-client {__version__}"
