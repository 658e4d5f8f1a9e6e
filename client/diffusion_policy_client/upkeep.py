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
        self._number, self._closed = _CARRIED_OVER, threading.Event()
        link = connect()
        self.welcome = link.welcome
        self._link: Link | None = link

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    def send(self, message: dict[str, Any]) -> bool:
        """Sends a message without an answer; returns whether there was a connection that took it."""
        if self._link is None:
            return False
        try:
            self._link.send(message)
        except ServerLostError as error:
            self.lose(str(error))
            return False
        return True

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Returns the answer to a question, None if there is none in time.

        Raises:
            ClientError: the answer is that this is not possible.
        """
        until = time.monotonic() + timeout_s
        self._number += 1
        if not self.send({**message, "id": self._number}):
            return None
        while self._link is not None:
            try:
                answer = self._link.receive(until - time.monotonic())
            except ServerLostError as error:
                self.lose(str(error))
                return None
            if answer is None:
                return None
            if answer["type"] == "error" and answer.get("id") == _CARRIED_OVER:
                self.lose(f"the server does not take the robot as it stands: {answer.get('message')}")
                return None
            if answer["type"] == "error" and answer.get("id") in (self._number, None):
                kinds: dict[Any, type[ClientError]] = {"config": MismatchError, "policy": PolicyError}
                raise kinds.get(answer.get("kind"), ObservationError)(str(answer.get("message")))
            if answer.get("id") == self._number:
                return answer
            self._counts.late += 1
        return None

    def lose(self, why: str) -> None:
        """Gives the connection up and begins to make another."""
        link, self._link, self.error = self._link, None, why
        if link is not None:
            self._counts.lost += 1
            threading.Thread(target=self._reconnect, args=(link,), name="reconnect", daemon=True).start()

    def close(self) -> None:
        """Ends the connection, for good; whoever waits for an answer in another thread waits no longer."""
        self._closed.set()
        if self._link is not None:
            self._link.close()
        with self._lock:
            self._link = None

    def _reconnect(self, old: Link) -> None:
        old.close()
        pause, longest = _RETRY_S
        while not self._closed.wait(pause):
            pause = min(2 * pause, longest)
            try:
                link = self._connect()
            except ClientError as error:
                self.error = str(error)
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
                link.send({**self._carried_over(link), "id": _CARRIED_OVER})
            except ServerLostError as error:
                self.error = str(error)
                link.close()
                return False
            self._link, self.error = link, None
            self._counts.reconnected += 1
            return True
