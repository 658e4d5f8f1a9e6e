"""Rotation vectors that turn over: near half a turn, v and v - 2 pi v / |v| are the same rotation.

Letters: T steps of an episode, D numbers of a key, W = D - 2 places where a vector of three may begin.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Places, counted, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Usual, rows_of

_TURN = 0.9 * 2 * np.pi  # of one vector to its like on the other side; no motion is that fast
_LONGEST = np.pi * 1.001  # of a rotation vector, and what rounding adds
_SOME = 0.02  # rad: of the second largest number of three; below, it tells nothing


@dataclass
class _Turns:
    """What was seen at one place: steps that turn over, and whether all of the vector does, or one number alone."""

    places: Places = field(default_factory=Places)
    whole: int = 0
    alone: int = 0
    bent: float = 0.0  # how far the vectors were from lying on one line, all together


class RotationVectorCheck:
    """Finds three neighbouring numbers, never longer than half a turn, that turn over from one step to the next.

    An angle that wraps around beside two small numbers looks alike, but these keep their signs.

    Args:
        usual: of the keys of role action or state.
    """

    def __init__(self, usual: Mapping[str, Usual]) -> None:
        self._longest = {key: np.zeros(len(each.low) - 2) for key, each in usual.items() if len(each.low) > 2}
        self._turns: dict[str, dict[int, _Turns]] = {key: {} for key in self._longest}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key, before in self._longest.items():
            rows = rows_of(episode[key])
            with np.errstate(invalid="ignore", over="ignore"):
                self._longest[key] = np.fmax(before, np.fmax.reduce(_threes(rows)))
                jumps = _threes(np.diff(rows, axis=0))  # (T - 1, W)
            for first in np.flatnonzero((jumps >= _TURN).any(axis=0) & (self._longest[key] <= _LONGEST)).tolist():
                turns = self._turns[key].setdefault(first, _Turns())
                self._take(turns, i, rows[:, first : first + 3], jumps[:, first])

    @staticmethod
    def _take(turns: _Turns, i: int, rows: NDArray[np.float64], jumps: NDArray[np.float64]) -> None:
        far = jumps >= _TURN
        turns.places.extend(i, far, 2)
        for before, after in zip(rows[:-1][far], rows[1:][far], strict=True):
            second = int(np.argsort(np.abs(before))[1])
            turns.bent += float(np.linalg.norm(before / np.linalg.norm(before) + after / np.linalg.norm(after)))
            if abs(before[second]) >= _SOME:
                turns.whole += bool(before[second] * after[second] < 0)
                turns.alone += bool(before[second] * after[second] > 0)

    def findings(self) -> list[Finding]:
        """Returns where vectors turn over."""
        return [
            _finding(key, first, self._turns[key][first].places) for key in self._turns for first in self._vectors(key)
        ]

    def _vectors(self, key: str) -> list[int]:
        """Returns where vectors begin; of places that overlap, those where they stay on their line."""
        possible = {
            first: turns
            for first, turns in self._turns[key].items()
            if self._longest[key][first] <= _LONGEST and turns.whole > turns.alone
        }
        taken: list[int] = []
        for first in sorted(possible, key=lambda each: possible[each].bent / possible[each].places.count):
            if all(abs(first - other) > 2 for other in taken):
                taken.append(first)
        return sorted(taken)


def _threes(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the lengths (n, W) of each three neighbours of rows (n, D)."""
    square = rows**2
    return np.asarray(np.sqrt(square[:, :-2] + square[:, 1:-1] + square[:, 2:]))


def _finding(key: str, first: int, places: Places) -> Finding:
    what = f"{key}[{first}:{first + 3}], a rotation vector, turns over at {counted(places.count, 'step')} of "
    what += of_episodes(places.episodes)
    dims = (first, first + 1, first + 2)
    return Finding(
        "rotation-vectors", "warning", what, key=key, dims=dims, episodes=places.episodes, spans=tuple(places.spans)
    )
