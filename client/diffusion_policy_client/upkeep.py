"""A connection that is made anew when it ends, as often as it takes."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from diffusion_policy_client.errors import ClientError, MismatchError, ObservationError, PolicyError, ServerLostError
from diffusion_policy_client.link import Link
from diffusion_policy_client.mail import Mail
from diffusion_policy_client.records import RemoteCounts

_RETRY_S = (0.05, 2.0)  # the first pause between attempts to reconnect, and the longest
_CARRIED_OVER = 0  # number of the question that tells a new connection where the robot stands


class Question(NamedTuple):
    """What was asked, and where.

    Args:
        number: of the question.
        link: the connection.
        mail: brings the answer.
    """

    number: int
    link: Link
    mail: Mail


class Upkeep:
    """Asks a server; where the connection ends, it says so at once, and a thread makes another.

    `observe` and `ask` only hand over what is to be sent, and may be called with the lock held. Nobody may hold it who
    waits for an answer.

    Args:
        connect: makes a connection, or raises ClientError.
        carried_over: returns the first message to a connection that stands in for a lost one; called with the lock
            held.
        counts: of connections lost and made anew, and of late answers.
        lock: of the controller.
        late: takes an answer that nobody waits for any more, or what comes behind one; called with the lock held.

    Attributes:
        asked: number of the last question.
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
        late: Callable[[dict[str, Any]], None],
    ) -> None:
        self._connect, self._carried_over, self._counts, self._lock = connect, carried_over, counts, lock
        self._late = late
        self.error: str | None = None
        self.refused: str | None = None
        self.asked, self._closed = _CARRIED_OVER, threading.Event()
        link = connect()
        self.welcome = link.welcome
        self._link: Link | None = link
        self._mail = Mail(link.receive, partial(self._hear, link))

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link is not None

    def is_current(self, question: Question | None) -> bool:
        """Whether there is still the connection on which a question was asked."""
        return question is not None and question.link is self._link

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

    def ask(self, message: dict[str, Any]) -> Question | None:
        """Sends a question; None where there is no connection."""
        with self._lock:
            self.asked += 1
            question = None if self._link is None else Question(self.asked, self._link, self._mail)
            if question is not None:
                question.mail.expect(question.number)
            return question if self._send({**message, "id": self.asked}) else None

    def answer(
        self, question: Question | None, timeout_s: float, longer_s: Callable[[], float] = lambda: 0.0
    ) -> dict[str, Any] | None:
        """Returns the answer to a question, None if there is none in time; called without the lock.

        Args:
            question: what was asked.
            timeout_s: how long to wait.
            longer_s: how long to wait on; it is asked when that time is over.

        Raises:
            ClientError: the answer is that this is not possible.
        """
        if question is None:
            return None
        try:
            answer = question.mail.answer(question.number, timeout_s, longer_s)
        except ServerLostError as error:
            self.lose(str(error), question.link)
            return None
        if self._link is not question.link:
            return None  # it was given up meanwhile, and what it says is worth nothing
        return None if answer is None else _possible(answer)

    def withdraw(self, question: Question | None) -> None:
        """Does not ask a question that was not sent yet, if there is one."""
        if question is not None:
            question.link.withdraw(question.number)

    def _hear(self, link: Link, answer: dict[str, Any]) -> None:
        """Takes what nobody waits for, and which connection said it."""
        number, is_error = answer.get("id"), answer["type"] == "error"
        if number is not None and not isinstance(number, int):
            raise ServerLostError(f"the connection ended: an answer's id was {number!r:.40}")
        with self._lock:
            if number == _CARRIED_OVER:  # ticks do not wait for it
                if is_error:
                    self.lose(f"the server does not take the robot as it stands: {answer.get('message')}", link)
            elif number is None and is_error:  # of an observation, which the robot does not wait for, either
                self._counts.refused += 1
                self.refused = str(answer.get("message"))
            else:
                is_ahead = answer["type"] == "ahead"
                self._counts.late += not is_ahead
                if link is self._link and (is_ahead or number is not None):
                    self._late(answer)

    def lose(self, why: str, of: Link | None = None) -> None:
        """Gives the connection up and begins to make another.

        Args:
            why: what `error` says until then.
            of: the connection that is meant: where there is another by now, nothing happens.
        """
        with self._lock:
            if self._link is None or self._closed.is_set() or of not in (None, self._link):
                return
            link, self._link, self.error = self._link, None, why
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
                    self._mail = Mail(link.receive, partial(self._hear, link))
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
