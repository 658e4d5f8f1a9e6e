"""Answers by their numbers, for several threads that wait at once: one of them reads for all, and nobody else does."""

import threading
import time
from collections.abc import Callable
from typing import Any


class Mail:
    """Hands each answer to the thread that waits for it.

    Args:
        receive: returns the next message, None if there is none within so many seconds; what it raises, the thread that
            read raises, and the next one tries for itself.
        other: is told what nobody waits for.
    """

    def __init__(
        self, receive: Callable[[float], dict[str, Any] | None], other: Callable[[dict[str, Any]], None]
    ) -> None:
        self._receive, self._other = receive, other
        self._expected: dict[int, dict[str, Any] | None] = {}
        self._changed, self._is_read = threading.Condition(), False

    def expect(self, number: int) -> None:
        """Is told that somebody is about to ask: the answer is kept until they wait for it."""
        with self._changed:
            self._expected[number] = None

    def answer(
        self, number: int, timeout_s: float, longer_s: Callable[[], float] = lambda: 0.0
    ) -> dict[str, Any] | None:
        """Returns the answer of a number that is expected, None if there is none in time; nobody expects it then.

        Args:
            number: of the question.
            timeout_s: how long to wait.
            longer_s: how long to wait on; it is asked when that time is over.
        """
        try:
            found = self._awaited(number, timeout_s)
            return self._awaited(number, longer_s()) if found is None else found
        finally:
            with self._changed:
                del self._expected[number]

    def _awaited(self, number: int, timeout_s: float) -> dict[str, Any] | None:
        until = time.monotonic() + timeout_s
        while True:
            with self._changed:
                free = self._changed.wait_for(
                    lambda: self._expected[number] is not None or not self._is_read, until - time.monotonic()
                )
                if not free or self._expected[number] is not None:
                    return self._expected[number]
                self._is_read = True
            if not self._has_read(until - time.monotonic()):
                return self._expected[number]

    def _has_read(self, timeout_s: float) -> bool:
        """Reads a message and hands it over; returns whether there was one in time."""
        try:
            message = self._receive(timeout_s)
            if message is not None:
                self._hand_over(message)
            return message is not None
        finally:
            with self._changed:
                self._is_read = False
                self._changed.notify_all()

    def _hand_over(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        with self._changed:
            wanted = isinstance(number, int) and number in self._expected
            if wanted:
                self._expected[number] = message  # type: ignore[index]
        if not wanted:
            self._other(message)
