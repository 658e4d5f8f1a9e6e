"""Contestants in processes of their own, asked in turn: what a busy machine takes, it takes from all of them."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".peer" / "bin" / "python"
"""The peer's interpreter; made by `bash benchmarks/peer_env.sh`."""


class Contestant:
    """A process that answers a line with a number of repetitions by a line of JSON: what each of them took.

    Args:
        command: its command line. Its first line says that it is ready, and its versions.
        threads: it may compute with.
    """

    def __init__(self, command: Sequence[str | Path], threads: int) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "2000"}
        self._process = subprocess.Popen(
            [str(word) for word in command], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(timeout=30)

    def measure(self, count: int) -> list[float]:
        """Returns what each of `count` repetitions took."""
        print(count, file=self._process.stdin, flush=True)
        return self._answer()  # type: ignore[no-any-return]

    def _answer(self) -> Any:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"a contestant ended with code {self._process.wait()}: {self._process.args}")
        return json.loads(line)


def peer(what: str, settings: Mapping[str, Any], threads: int) -> Contestant | None:
    """Returns the peer, or None with a message when it is not installed."""
    if not PEER.is_file():
        print("peer skipped: bash benchmarks/peer_env.sh installs lerobot in an environment of its own", flush=True)
        return None
    return Contestant([PEER, ROOT / "benchmarks" / "peer.py", what, json.dumps(settings)], threads)


def in_turn(
    contestants: Mapping[str, Contestant], rounds: int, count: int, of: Callable[[list[float]], float]
) -> dict[str, list[float]]:
    """Returns one number for each contestant and round: the median, say, of `count` repetitions."""
    numbers: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            numbers[name].append(of(contestant.measure(count)))
    return numbers


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Returns by how much `fast` is faster: median, smallest and largest of the rounds' ratios."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": median(each), "lowest": min(each), "highest": max(each)}
