"""Plans in a thread of its own while the running chunk plays."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from diffusion_policy.control.plan import answers
from diffusion_policy.control.timed import TimedController

logger = logging.getLogger(__name__)


class Planner:
    """Keeps a controller supplied with plans: asks as often as its strategy wants, computes, hands over.

    A context manager, as often as one likes; the thread ends with it. torch leaves Python's lock while it computes, so
    ticks go on. If a policy raises, planning ends: once its plans are over the controller holds, or stops
    (`SafetyConfig.on_starved`), and whoever ticks should look at `error`. That a policy is too slow for its
    rate is said once, as a warning of this module's logger, and stands in `TimedController.slow`.

    Args:
        controller: whose plans it makes.
        clock: the time, in seconds, that observations and actions have.
        pause_s: how often it looks whether a plan is due.
        patience_s: how long leaving waits for a plan that is being made; the thread is left behind after that.

    Attributes:
        error: what ended planning, if something did.
    """

    def __init__(
        self,
        controller: TimedController,
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = 0.001,
        patience_s: float = 10.0,
    ) -> None:
        self.error: Exception | None = None
        self._controller, self._clock, self._pause, self._patience = controller, clock, pause_s, patience_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether plans are being made."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> "Planner":
        """Starts a thread."""
        self.error, self._ended = None, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._ended,), name="planner", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._patience)
            if self._thread.is_alive():
                self.error = TimeoutError(f"a plan took longer than {self._patience:g} s; its thread was left behind")

    def _run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                planned = self._plan_if_due()
            except Exception as error:  # whatever a policy raises must not end the ticks: they go on and can ask
                self.error = error
                return
            if not planned:
                ended.wait(self._pause)

    def _plan_if_due(self) -> bool:
        request = self._controller.request_if_due(self._clock())
        if request is None:
            return False
        prediction = answers(self._controller.policy, [request])[0]
        was_slow = self._controller.slow is not None
        self._controller.accept(request, prediction, self._clock())
        if self._controller.slow is not None and not was_slow:
            logger.warning("%s: %s", type(self._controller.strategy).__name__, self._controller.slow)
        return True
