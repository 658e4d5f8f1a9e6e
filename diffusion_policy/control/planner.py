"""Plans in a thread of its own while the running chunk plays."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from diffusion_policy.control.plan import answers
from diffusion_policy.control.timed import TimedController


class Planner:
    """Keeps a controller supplied with plans: asks as often as its strategy wants, computes, hands over.

    A context manager; the thread ends with it. torch leaves Python's lock while it computes, so ticks go on.

    Args:
        controller: whose plans it makes.
        clock: the time, in seconds, that observations and actions have.
        pause_s: how often it looks whether a plan is due.

    Attributes:
        error: what ended planning, if something did; the controller then repeats its last action, and whoever ticks
            should look here.
    """

    def __init__(
        self, controller: TimedController, clock: Callable[[], float] = time.monotonic, pause_s: float = 0.001
    ) -> None:
        self.error: Exception | None = None
        self._controller, self._clock, self._pause = controller, clock, pause_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether plans are being made."""
        return self._thread.is_alive()

    def __enter__(self) -> "Planner":
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread; a plan that is being made is finished first."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                planned = self._plan_if_due()
            except Exception as error:  # whatever a policy raises must not end the ticks: they go on and can ask
                self.error = error
                return
            if not planned:
                self._ended.wait(self._pause)

    def _plan_if_due(self) -> bool:
        now = self._clock()
        if not self._controller.is_due(now):
            return False
        request = self._controller.request(now)
        prediction = answers(self._controller.policy, [request])[0]
        self._controller.accept(request, prediction, self._clock())
        return True
