"""Where a long step stands and when it will be done: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar:
    """Counts towards a total on stderr, with elapsed time, ETA and a note.

    Args:
        title: what is going on, e.g. "evaluate".
        total: how many there are to do.
        enabled: False prints nothing.
        console: where to; stderr by default.
        every: seconds between two lines when the console is no terminal.
    """

    def __init__(
        self, title: str, total: int, *, enabled: bool = True, console: Console | None = None, every: float = 10.0
    ) -> None:
        self.title, self.total, self.every = title, total, every
        self._enabled = enabled
        self._console = console or Console(file=sys.stderr)
        self._begin = self._last_line = time.monotonic()
        self._first = 0
        self._bar: Progress | None = None
        if enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(title, total=total, note="")

    def start_at(self, done: int) -> None:
        """Tells what was done before this run began, so that the ETA is not fooled by a resumed one."""
        self._first = done
        self.update(done)

    def expect(self, total: int) -> None:
        """Tells how many there are to do, where that was not known before."""
        self.total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def update(self, done: int, note: str = "") -> None:
        """Shows that `done` of `total` are through, and a few words, e.g. "max reward 0.871"."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._enabled and (now - self._last_line >= self.every or (done >= self.total and done > self._first)):
            self._last_line = now
            elapsed = now - self._begin
            rate = (done - self._first) / elapsed if elapsed > 0 else 0.0
            eta = _clock((self.total - done) / rate) if rate > 0 else "-:--:--"
            line = f"{self.title} {done}/{self.total} elapsed {_clock(elapsed)} eta {eta} {note}".rstrip()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
