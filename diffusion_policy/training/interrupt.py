"""Ctrl-C that finishes what must not be torn."""

import logging
import signal
from types import FrameType, TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class Interrupt:
    """While entered, the first Ctrl-C is only noted; the second raises, unless a state is being saved.

    Args:
        patient: of several processes. torchrun passes each signal on to processes that have had it already, and ends
            them by SIGTERM: both are noted, and none raises.

    Attributes:
        requested: whether somebody wants to stop.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.requested = False
        self._patient = patient
        self._saving = False
        self._in_charge = False

    def now_saving(self) -> None:
        """From here on no Ctrl-C gets through: what is saved is saved whole."""
        self._saving = True

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        if self._saving or (self._patient and self.requested):
            return
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._patient:
            logger.info("stopping after this step, then saving; torchrun ends what takes longer than 30 s")
            return
        logger.info("stopping after this step, then saving; Ctrl-C again stops at once, without saving")

    def __enter__(self) -> Self:
        try:
            noted = (signal.SIGINT, signal.SIGTERM) if self._patient else (signal.SIGINT,)
            self._previous = {each: signal.signal(each, self._note) for each in noted}
            self._in_charge = True
        except ValueError:  # not in the main thread (a notebook server, a worker): its handler stays
            self._in_charge = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_charge:
            for each, handler in self._previous.items():
                signal.signal(each, handler)
