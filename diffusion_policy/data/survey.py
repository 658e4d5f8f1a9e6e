"""One pass over a data set: statistics of each key, digests, and what is wrong or odd about the episodes.

Every episode is read once and thrown away, so a data set of any size is surveyed in a few hundred megabytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.digest import GENESIS, chain
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions_check import NEXT, bounds_problem, flag_problems, next_mismatches

_LOW_DIM_SIZE = 1024  # numbers in a step; above, constant and outlying dimensions mean nothing (a black image corner)
_OUTLIER_RANGES = 10.0  # times the span between the 1st and 99th percentile, beyond the median


@dataclass
class KeyStatistics:
    """Running statistics of one key, per number of a step, over finite values.

    Args:
        shape: of one step.
        dtype: as stored.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: NDArray[Any] = field(init=False)
    high: NDArray[Any] = field(init=False)
    total: float = 0.0
    count: int = 0
    non_finite: int = 0
    first_non_finite: str = ""

    def __post_init__(self) -> None:
        size = int(np.prod(self.shape, dtype=np.int64))
        self.low, self.high = np.full(size, np.inf), np.full(size, -np.inf)

    def add(self, values: NDArray[Any], episode: int) -> None:
        """Takes in the steps (T, *shape) of one episode."""
        rows = values.reshape(len(values), -1)
        if rows.dtype.kind == "f":
            finite = np.isfinite(rows)
            if not finite.all():
                bad = np.flatnonzero(~finite.all(axis=1))
                self.first_non_finite = self.first_non_finite or f"step {bad[0]} of episode {episode}"
                self.non_finite += int((~finite).sum())
                self.low = np.minimum(self.low, rows.min(axis=0, where=finite, initial=np.inf))
                self.high = np.maximum(self.high, rows.max(axis=0, where=finite, initial=-np.inf))
                self.total += float(rows.sum(where=finite, dtype=np.float64))
                self.count += int(finite.sum())
                return
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        self.total += float(rows.sum(dtype=np.float64))
        self.count += rows.size

    @property
    def mean(self) -> float:
        """Over all finite numbers; NaN if there are none."""
        return self.total / self.count if self.count else float("nan")

    @property
    def constant(self) -> list[int]:
        """Flat indices of the numbers of a step that never change."""
        return [int(i) for i in np.flatnonzero(self.low == self.high)]


@dataclass(frozen=True)
class Survey:
    """What a pass over the data set found.

    Args:
        keys: statistics by key.
        lengths: (M,) steps per episode.
        digest: of the surveyed keys, hex.
        problems: what makes the data unfit to train from, one sentence each.
        notes: what is odd but harmless.
    """

    keys: Mapping[str, KeyStatistics]
    lengths: NDArray[np.int64]
    digest: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def survey(
    buffer: ReplayBuffer,
    keys: Sequence[str] | None = None,
    *,
    action_bounds: Sequence[Sequence[float]] | None = None,
    on_episode: Callable[[int], None] | None = None,
) -> Survey:
    """Returns statistics and findings of a data set.

    Args:
        buffer: at least one episode.
        keys: only these are read; None for all.
        action_bounds: [low, high] that the environment takes, Da numbers each; None where they are not known.
        on_episode: called with the steps of each episode done, for a progress bar.

    Raises:
        DataError: no such key, or a chunk that cannot be decoded.
    """
    wanted = buffer.keys() if keys is None else sorted(set(keys))
    statistics = {key: KeyStatistics(buffer.shape(key), buffer.dtype(key)) for key in wanted}
    last, chained, seen = GENESIS, [], dict[bytes, list[int]]()
    ends = _Ends(wanted)
    for i, episode in enumerate(buffer.episodes(wanted)):
        for key, values in episode.items():
            statistics[key].add(values, i)
        ends.add(episode)
        last = chain(last, episode)
        chained.append(last)
        seen.setdefault(chain(GENESIS, episode), []).append(i)
        if on_episode is not None:
            on_episode(buffer.episode_slice(i).stop - buffer.episode_slice(i).start)
    problems = [*_non_finite(statistics), *_duplicates(seen.values()), *ends.problems(buffer)]
    if action_bounds is not None and "action" in statistics:
        problems += filter(None, [bounds_problem(statistics["action"].low, statistics["action"].high, action_bounds)])
    if wanted == buffer.keys():
        problems += _altered(buffer, chained)
    return Survey(
        keys=statistics,
        lengths=lengths(buffer.episode_ends),
        digest=last.hex(),
        problems=tuple(problems),
        notes=(*_interrupted(buffer), *_constant(statistics), *_outlying(buffer, statistics)),
    )


class _Ends:
    """What each episode says about its end and about what follows its steps.

    Args:
        keys: that are read.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._flags: dict[str, list[NDArray[Any]]] = {key: [] for key in ("terminated", "truncated") if key in keys}
        self._mismatches = {key: 0 for key in keys if NEXT + key in keys}

    def add(self, episode: Mapping[str, NDArray[Any]]) -> None:
        """Takes in one episode, {key: (T, *shape)}."""
        for key, found in self._flags.items():
            found.append(np.asarray(episode[key].reshape(len(episode[key]), -1).any(axis=1)))
        for key in self._mismatches:
            self._mismatches[key] += next_mismatches(episode, key)

    def problems(self, buffer: ReplayBuffer) -> list[str]:
        """Returns what is wrong, after all episodes."""
        flags = {key: np.concatenate(found) for key, found in self._flags.items()}
        wrong = [
            f"{NEXT}{key}: {count} steps tell of something else than the following step shows; episodes must end "
            f"where the next row does not follow"
            for key, count in self._mismatches.items()
            if count
        ]
        return [*flag_problems(buffer.episode_ends, flags), *wrong]


def _non_finite(statistics: Mapping[str, KeyStatistics]) -> list[str]:
    return [
        f"{key}: {each.non_finite} numbers are NaN or infinite, first at {each.first_non_finite}"
        for key, each in statistics.items()
        if each.non_finite
    ]


def _duplicates(groups: Iterable[list[int]]) -> list[str]:
    return [
        f"episodes {', '.join(map(str, group[:10]))}{' ...' if len(group) > 10 else ''} are the same, number by "
        f"number; a split by episodes would train on its validation data"
        for group in groups
        if len(group) > 1
    ]


def _altered(buffer: ReplayBuffer, chained: Sequence[bytes]) -> list[str]:
    stored = buffer.stored_digests()
    if stored is None:
        return []
    computed = np.frombuffer(b"".join(chained), np.uint8).reshape(stored.shape)
    wrong = np.flatnonzero((stored != computed).any(axis=1))
    if not wrong.size:
        return []
    return [f"episode {wrong[0]} is not what was written (its digest differs): changed or damaged since"]


def _interrupted(buffer: ReplayBuffer) -> list[str]:
    hidden = buffer.hidden_steps
    if not hidden:
        return []
    return [f"{hidden} steps behind the last whole episode are ignored: an append was interrupted"]


def _constant(statistics: Mapping[str, KeyStatistics]) -> list[str]:
    return [
        f"{key}: {_listed(each.constant)} never change{'s' if len(each.constant) == 1 else ''} (normalised to zero)"
        for key, each in statistics.items()
        if each.constant and each.low.size <= _LOW_DIM_SIZE and each.dtype.kind != "b"
    ]


def _outlying(buffer: ReplayBuffer, statistics: Mapping[str, KeyStatistics]) -> list[str]:
    """Single numbers far from all others: they would set the limits that the normaliser scales by."""
    notes = []
    for key, each in statistics.items():
        if not each.count or each.non_finite or each.low.size > _LOW_DIM_SIZE or each.dtype.kind == "b":
            continue
        rows = buffer[key].reshape(buffer.num_steps, -1)
        bottom, middle, top = np.percentile(rows, [1, 50, 99], axis=0)
        reach = _OUTLIER_RANGES * (top - bottom)
        far = np.flatnonzero((reach > 0) & ((each.high - middle > reach) | (middle - each.low > reach)))
        if far.size:
            i = int(far[0])
            notes.append(
                f"{key}: {_listed([int(j) for j in far])} reach{'es' if far.size == 1 else ''} far outside the usual "
                f"range ({each.low[i]:.4g} .. {each.high[i]:.4g}, while 98 % lie in {bottom[i]:.4g} .. {top[i]:.4g})"
            )
    return notes


def _listed(dimensions: Sequence[int]) -> str:
    shown = ", ".join(map(str, dimensions[:8])) + (" ..." if len(dimensions) > 8 else "")
    return f"dimension{'s' if len(dimensions) > 1 else ''} {shown}"
