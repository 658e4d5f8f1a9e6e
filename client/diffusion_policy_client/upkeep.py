"""A connection that is made anew when it ends, as often as it takes."""

import threading
import time
from collections.abc import Callable
from typing import Any

from diffusion_policy_client.errors import ClientError, MismatchError, ObservationError, PolicyError, ServerLostError
from diffusion_policy_client.link import Link
from diffusion_policy_client.records import RemoteCounts

_RETRY_S = (0.05, 2.0)  # the first pause between attempts to reconnect, and the longest
_CARRIED_OVER = 0  # number of the question that tells a new connection where the robot stands


class Upkeep:
    """Asks a server; where the connection ends, it says so at once, and a thread makes another.

    Its calls are made with the lock held; none lasts longer than it is let.

    Args:
        connect: makes a connection, or raises ClientError.
        carried_over: returns the first message to a connection that stands in for a lost one; called with the lock
            held.
        counts: of connections lost and made anew, and of late answers.
        lock: of the controller.

    Attributes:
        error: why there is no connection; None while there is one.
        refused: what the server said of the last observation that it did not take; None while it takes all.
        welcome: what the first server said.

    Raises:
        ClientError: the first connection cannot be made.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        carried_over: Callable[[Link], dict[str, Any]],
        counts: RemoteCounts,
        lock: "threading.RLock",
    ) -> None:
        self._connect, self._carried_over, self._counts, self._lock = connect, carried_over, counts, lock
        self.error: str | None = None
        self.refused: str | None = None
        self._number, self._closed = _CARRIED_OVER, threading.Event()
        link = connect()
        self.welcome = link.welcome
        self._link: Link | None = link

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    def observe(self, message: dict[str, Any]) -> None:
        """Sends an observation, and counts those that will not be."""
        if not self._send(message):
            self._counts.unsent += 1

    def _send(self, message: dict[str, Any]) -> bool:
        """Sends a message; returns whether there was a connection that took it."""
        if self._link is None:
            return False
        try:
            replaced = self._link.send(message)
        except ServerLostError as error:
            self.lose(str(error))
            return False
        self._counts.unsent += replaced
        return True

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Returns the answer to a question, None if there is none in time.

        Raises:
            ClientError: the answer is that this is not possible.
        """
        until = time.monotonic() + timeout_s
        self._number += 1
        if not self._send({**message, "id": self._number}):
            return None
        while self._link is not None:
            try:
                answer = self._link.receive(until - time.monotonic())
            except ServerLostError as error:
                self.lose(str(error))
                return None
            if answer is None:
                if message["type"] in ("tick", "plan"):  # whatever else is asked is still to be done
                    self._link.withdraw(self._number)
                return None
            if answer.get("id") == self._number:
                return _possible(answer)
            self._hear(answer)
        return None

    def _hear(self, answer: dict[str, Any]) -> None:
        """Takes what answers nothing that is being asked."""
        number, is_error = answer.get("id"), answer["type"] == "error"
        if number == _CARRIED_OVER:  # ticks do not wait for it
            if is_error:
                self.lose(f"the server does not take the robot as it stands: {answer.get('message')}")
        elif number is None and is_error:  # of an observation, which the robot does not wait for, either
            self._counts.refused += 1
            self.refused = str(answer.get("message"))
        else:
            self._counts.late += 1

    def lose(self, why: str) -> None:
        """Gives the connection up and begins to make another."""
        link, self._link, self.error = self._link, None, why
        if link is not None:
            self._counts.lost += 1
            self._counts.unsent += link.unsent()
            threading.Thread(target=self._reconnect, args=(link,), name="reconnect", daemon=True).start()

    def close(self) -> None:
        """Ends the connection, for good; whoever waits for an answer in another thread waits no longer."""
        self._closed.set()
        if self._link is not None:
            self._link.close()
        with self._lock:
            link, self._link = self._link, None
        if link is not None:  # made meanwhile
            link.close()

    def _reconnect(self, old: Link) -> None:
        old.close()
        pause, longest = _RETRY_S
        while not self._closed.wait(pause):
            pause = min(2 * pause, longest)
            try:
                if self._taken(self._connect()):
                    return
            except Exception as error:  # whatever it was, the robot is to find its server again
                self.error = str(error) or type(error).__name__

    def _taken(self, link: Link) -> bool:
        """Puts a new connection in the place of the lost one; returns whether there is nothing left to do."""
        taken = False
        try:
            with self._lock:
                if not self._closed.is_set():
                    link.send({**self._carried_over(link), "id": _CARRIED_OVER})
                    self._link, self.error, taken = link, None, True
                    self._counts.reconnected += 1
        finally:
            if not taken:
                link.close()
        return True


def _possible(answer: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer, unless it is that something is not possible; raises that."""
    if answer["type"] != "error":
        return answer
    kinds: dict[Any, type[ClientError]] = {"config": MismatchError, "policy": PolicyError}
    raise kinds.get(answer.get("kind"), ObservationError)(str(answer.get("message")))
