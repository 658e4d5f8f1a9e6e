"""Episodes that are nearly the same as others, and episodes that are very short.

Episodes are compared at a few points in time, spread over each: first roughly, all at once, by random projections of
these points, then those that come near each other number by number. Letters: M episodes, T steps of one, D numbers,
P points.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from diffusion_policy.data.doctor.findings import Finding, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Usual, rows_of
from diffusion_policy.data.episodes import Ends, lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer

NEAR = 0.02
"""Of the usual range of each number, root mean square over an episode: within a pixel or two of a 96-pixel picture."""
SHORT_STEPS = 16
"""The default window (pred_horizon) of dp-train, which refuses shorter episodes."""
_FALSE_START = 0.1  # of the median length; shorter ones are false starts rather than short tasks
_POINTS = 16
_PROJECTED = 12  # numbers that stand for an episode in the first, rough comparison
_ROUGH = 2.0  # how much nearer a projection may come than what it stands for: all true pairs stay within
_LENGTHS = 1.1  # ratio of lengths above which two episodes are not the same
_NOWHERE = np.zeros(_PROJECTED)
_KEPT = 512  # episodes whose points are kept while pairs are compared: reading them takes longest
_PAIRS = 5_000  # that are compared number by number, at most: where more are near, the data set hardly varies


class SimilarCheck:
    """Finds episodes that are nearly the same, though not number by number.

    Args:
        buffer: what to compare, once more, where a rough comparison finds pairs.
        usual: of its keys of role action or state.
    """

    def __init__(self, buffer: ReplayBuffer, usual: Mapping[str, Usual]) -> None:
        self._buffer = buffer
        self._kept = {key: each.span > 0 for key, each in usual.items() if (each.span > 0).any()}
        self._low = {key: usual[key].low[kept] for key, kept in self._kept.items()}
        self._span = {key: usual[key].span[kept] for key, kept in self._kept.items()}
        self._size = _POINTS * sum(int(kept.sum()) for kept in self._kept.values())
        rng = np.random.default_rng(0)
        self._projection = rng.normal(size=(self._size, _PROJECTED)) / np.sqrt(_PROJECTED * max(1, self._size))
        self._rough: list[NDArray[np.float64]] = []

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        if len(next(iter(episode.values()))) < _POINTS:  # never compared, see `groups`
            self._rough.append(_NOWHERE)
        else:
            self._rough.append(self._points(episode).reshape(-1) @ self._projection)

    def _points(self, episode: Episode) -> NDArray[np.float64]:
        """Returns (P, D) in usual ranges."""
        count = len(next(iter(episode.values())))
        at = np.linspace(0, count - 1, _POINTS).round().astype(int)
        columns = [
            (rows_of(episode[key][at])[:, kept] - self._low[key]) / self._span[key] for key, kept in self._kept.items()
        ]
        if not columns:
            return np.zeros((_POINTS, 0))
        return np.nan_to_num(np.concatenate(columns, axis=1), nan=0.0, posinf=0.0, neginf=0.0)

    def groups(self, same: Sequence[Sequence[int]] = ()) -> list[list[int]]:
        """Returns groups of nearly equal episodes, each sorted, after all episodes.

        Args:
            same: groups that are known to be equal number by number: only the first of each is compared.
        """
        if not self._size:
            return []
        steps = lengths(self._buffer.episode_ends)
        known = {i for group in same for i in group[1:]}
        # what is shorter than the points is compared at each of its steps several times, which says nothing
        chosen = np.array([i for i in range(len(steps)) if i not in known and steps[i] >= _POINTS], np.int64)
        if len(chosen) < 2:
            return []
        tree = cKDTree(np.array(self._rough)[chosen])
        pairs = chosen[tree.query_pairs(_ROUGH * NEAR, output_type="ndarray")]
        pairs = pairs[np.lexsort(pairs.T[::-1])]
        ratio = steps[pairs].max(axis=1) / steps[pairs].min(axis=1)
        near = pairs[ratio <= _LENGTHS][:_PAIRS]
        points = lru_cache(_KEPT)(lambda i: self._points(self._buffer.get_episode(i, list(self._kept))))
        return _grouped([(i, j) for i, j in near.tolist() if np.sqrt(((points(i) - points(j)) ** 2).mean()) <= NEAR])

    def findings(self) -> list[Finding]:
        """Returns what groups there are."""
        return self.about(self.groups())

    @staticmethod
    def about(groups: Sequence[Sequence[int]]) -> list[Finding]:
        """Returns what groups of nearly equal episodes there are."""
        episodes = tuple(sorted(i for group in groups for i in group))
        if not episodes:
            return []
        what = f"{of_episodes(groups[0])} are nearly the same"
        if len(groups) > 1:
            what += f", and so are {len(groups) - 1} more groups; {len(episodes)} episodes in all"
        return [Finding("similar-episodes", "warning", what, episodes=episodes)]


def _grouped(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Returns what hangs together by pairs."""
    leader: dict[int, int] = {}

    def find(i: int) -> int:
        while leader.setdefault(i, i) != i:
            i = leader[i]
        return i

    for i, j in pairs:
        first, second = sorted((find(i), find(j)))
        leader[second] = first
    groups: dict[int, list[int]] = {}
    for i in sorted(leader):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def short_findings(ends: Ends) -> list[Finding]:
    """Returns which episodes are very short, and whether they look like false starts.

    Args:
        ends: (M,) of the episodes.
    """
    steps = lengths(ends)
    middle = float(np.median(steps))
    if steps.max() < SHORT_STEPS:  # transitions, or something else that has no windows
        return []
    short = np.flatnonzero(steps < SHORT_STEPS).tolist()
    starts = np.flatnonzero((steps < SHORT_STEPS) & (steps < _FALSE_START * middle)).tolist()
    if not short:
        return []
    what = f"{of_episodes(short)} {'has' if len(short) == 1 else 'have'} fewer than {SHORT_STEPS} steps"
    if starts:
        what += f"; less than a tenth of the median ({middle:g}): {of_episodes(starts)}"
    return [Finding("short", "warning" if starts else "note", what, episodes=tuple(short))]
