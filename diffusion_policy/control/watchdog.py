"""What acts when the loop of ticks itself hangs: rules of safety are kept at ticks, and then there are none."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from diffusion_policy.errors import ConfigError


class Watchdog:
    """Calls for a stop, from a thread of its own, when it was not fed for too long.

    A context manager; feed it after each action that was sent. It calls once, and again only after it was fed: what
    `stop` does must hold by itself, and must be a thing that another thread may do while the loop hangs in the driver.
    Python's lock must be free, too: a driver that holds it while it hangs holds up the dog. So it is no replacement for
    a watchdog in the motors' own controller.

    Args:
        stop: brings the robot to rest.
        limit_s: seconds without food; some steps.
        clock: the time in seconds; only differences count.

    Attributes:
        barked: how often it called.
        error: what `stop` raised the last time, if it did.
    """

    def __init__(self, stop: Callable[[], object], limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < limit_s < float("inf"):
            raise ConfigError(f"limit_s must be positive seconds without a tick, but got {limit_s!r}")
        self.barked = 0
        self.error: Exception | None = None
        self._stop, self._limit, self._clock = stop, limit_s, clock
        self._changed = threading.Condition()
        self._fed_s: float | None = None  # None: it called already
        self._ended = True
        self._thread: threading.Thread | None = None

    def feed(self) -> None:
        """Tells that the loop is alive."""
        with self._changed:
            if self._fed_s is None:
                self._changed.notify()
            self._fed_s = self._clock()

    def __enter__(self) -> "Watchdog":
        """Begins to watch, as if it was fed now."""
        self._ended, self._fed_s = False, self._clock()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends watching."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(self._limit + 1.0)  # a stop that hangs is left behind

    def _watch(self) -> None:
        while self._is_hungry():
            try:
                self._stop()
            except Exception as error:  # the dog must live: the loop may come back, and hang again
                self.error = error
            finally:
                self.barked += 1

    def _is_hungry(self) -> bool:
        """Waits until it was not fed for too long; returns False when watching ends before."""
        with self._changed:
            while not self._ended:
                left = None if self._fed_s is None else self._fed_s + self._limit - self._clock()
                if left is not None and left <= 0:
                    self._fed_s = None
                    return True
                self._changed.wait(left)
            return False
