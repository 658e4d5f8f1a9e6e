"""A finding: what was found and where, what it does to training, and how to mend it.

Three severities. A *problem* is a fact that makes data unfit: numbers that are none, episodes twice, time that runs
backwards. A *warning* is likely to cost success, judged by a threshold, so that a person should look. A *note* is
true and harmless, or harmless to most. `dp-inspect` exits with 1 for problems only: a command in a script must not
fail for what may be as it should be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.kinds import KINDS, Kind

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")

_LONG = 8  # dimensions or episodes that a sentence lists
_SPANS = 1000  # that are kept of what may be at every step: memory must not grow with the data set


@dataclass(frozen=True)
class Span:
    """Steps [start, stop) of an episode."""

    episode: int
    start: int
    stop: int


class Places:
    """Where something was found: the first thousand spans, and the count and the episodes of all."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.count = 0
        self._episodes: set[int] = set()

    def add(self, span: Span) -> None:
        """Takes in one more."""
        self.count += 1
        self._episodes.add(span.episode)
        if len(self.spans) < _SPANS:
            self.spans.append(span)

    def extend(self, episode: int, where: NDArray[np.bool_], steps: int = 1) -> None:
        """Takes in the steps of an episode where something holds, (T,), each so many steps long."""
        for t in np.flatnonzero(where):
            self.add(Span(episode, int(t), int(t) + steps))

    @property
    def episodes(self) -> tuple[int, ...]:
        """Sorted."""
        return tuple(sorted(self._episodes))


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Args:
        name: of `KINDS`.
        severity: see above.
        what: one sentence that says what and where.
        key: of the data set; empty where it is about episodes as a whole.
        dims: flat indices of a step; empty for all.
        episodes: concerned, sorted; empty for all.
        spans: where in them, as far as it was noted.
    """

    name: str
    severity: Severity
    what: str
    key: str = ""
    dims: tuple[int, ...] = ()
    episodes: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()

    @property
    def kind(self) -> Kind:
        """What it is an example of."""
        return KINDS[self.name]

    def mend(self, data: str) -> str:
        """Returns what to do about it, the very command where there is one.

        Args:
            data: the data set.
        """
        return self.kind.mend.format(data=data, key=self.key, name=self.name)

    @property
    def option(self) -> str:
        """Of dp-convert, which mends it without anybody's choice; empty where there is none, or no need."""
        return "" if self.severity == "note" else self.kind.option.format(name=self.name)

    def plain(self, data: str) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "what": self.what,
            "key": self.key,
            "dims": list(self.dims),
            "episodes": list(self.episodes),
            "spans": [[each.episode, each.start, each.stop] for each in self.spans],
            "effect": self.kind.effect,
            "mend": self.mend(data),
        }


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns findings, the worst first, else in their order."""
    return tuple(sorted(findings, key=lambda each: SEVERITIES.index(each.severity)))


def of_dims(dims: Sequence[int]) -> str:
    """Returns "dimension 3" or "dimensions 0, 1 ..."."""
    return f"dimension{'s' if len(dims) > 1 else ''} {_some(dims)}"


def of_episodes(episodes: Sequence[int]) -> str:
    """Returns "episode 3" or "5 episodes (0, 2, 3, 7, 9)"."""
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    return f"{len(episodes)} episodes ({_some(episodes)})"


def counted(number: int, noun: str) -> str:
    """Returns "1 step" or "3 steps"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_LONG])) + (" ..." if len(numbers) > _LONG else "")
