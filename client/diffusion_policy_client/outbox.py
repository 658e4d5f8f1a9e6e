"""What is to be sent, in its order: at once where the network takes it, or else by a thread of its own.

Whoever says something does not wait for the network.
"""

import threading
from collections import deque
from collections.abc import Callable

_WAITING_BYTES = 64 * 1024  # of observations: numbers all wait, of pictures the newest
_AT_ONCE_BYTES = 8 * 1024  # of a message for which there is room where a socket takes anything


class Outbox:
    """Sends what is put into it. Observations that wait while the network is slow make room for newer ones.

    Args:
        send: sends one message, however long it takes; after it raised, nothing more is sent.
        free: whether the network takes a small message now. Such a one is sent by whoever says it: waking another
            thread takes longer than sending, and milliseconds where all cores are busy.

    Attributes:
        failed: what it raised; None while all is well.
        fewest: observations that wait at least, whatever their size.
    """

    def __init__(self, send: Callable[[bytes], None], free: Callable[[], bool]) -> None:
        self.failed: Exception | None = None
        self.fewest = 1
        self._send, self._free = send, free
        self._sending = False  # the thread: what comes later must not overtake
        self._waiting: deque[tuple[int | None, bytes]] = deque()  # number, None for an observation; and the message
        self._changed, self._ended = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, data: bytes, number: int | None) -> int:
        """Takes a message, and does not wait; returns how many observations made room for it.

        Args:
            data: the message.
            number: of a question; None for an observation.
        """
        with self._changed:
            if not self._waiting and not self._sending and len(data) <= _AT_ONCE_BYTES and self._free():
                self._try(data)
                return 0
            self._waiting.append((number, data))
            self._changed.notify()
            return 0 if number is not None else self._make_room()

    def withdraw(self, number: int) -> None:
        """Forgets a question that waits, if it does: nobody wants to know any more."""
        with self._changed:
            self._waiting = deque(each for each in self._waiting if each[0] != number)

    def unsent(self) -> int:
        """Returns how many observations wait."""
        with self._changed:
            return sum(number is None for number, _ in self._waiting)

    def close(self, patience_s: float) -> bool:
        """Ends the thread when all was sent; returns whether it ended in time."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _make_room(self) -> int:
        sizes = [len(data) for number, data in self._waiting if number is None]
        dropped = 0
        while len(sizes) - dropped > self.fewest and sum(sizes[dropped:]) > _WAITING_BYTES:
            dropped += 1
        for _ in range(dropped):
            del self._waiting[next(place for place, (number, _) in enumerate(self._waiting) if number is None)]
        return dropped

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                _, data = self._waiting.popleft()
                self._sending = True
            self._try(data)
            with self._changed:
                self._sending = False
            if self.failed is not None:
                return

    def _try(self, data: bytes) -> None:
        try:
            self._send(data)
        except Exception as error:  # of the network, or a defect: whoever sends next is told
            self.failed = error
