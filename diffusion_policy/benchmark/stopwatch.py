"""How long a cell computed, over all the sessions that it took."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stopwatch:
    """Wall and CPU seconds, this process and its children, kept in a file that survives an interruption.

    Args:
        file: where they are kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, Any]:
        """Returns {wall_s, cpu_s, sessions, complete}; not complete: a session was killed, and its time is lost."""
        if not self._file.is_file():
            return {"wall_s": 0.0, "cpu_s": 0.0, "sessions": 0, "complete": True}
        said: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        return {**said, "complete": said["complete"] and not said.get("running", False)}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the time inside, however it ends but for a kill."""
        before, wall, cpu = self.read(), time.perf_counter(), _cpu_seconds()
        self._write({**before, "running": True})
        try:
            yield
        finally:
            spent = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_seconds() - cpu, "sessions": 1}
            after = {name: before[name] + value for name, value in spent.items()}
            self._write({**after, "complete": before["complete"]})

    def _write(self, said: dict[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(said), encoding="utf-8")
        partial.replace(self._file)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
