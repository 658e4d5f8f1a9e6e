"""Streams that stand still while others move: frozen sensors, pictures that repeat, slow streams.

A sensor has frozen where a number that changes at practically every step of other episodes does not change at all,
to the last bit, while others move. An object that nobody touches stands still, too; so what often stands still in
this data set is never called frozen, nor what lies at the end of its range: it is clipped, or at a joint's stop. And a
joint that has arrived may rest: a frozen sensor jumps when it comes back, or, if it never does, it stopped in the
middle of a motion while commands went on.
Letters: T steps of an episode, D numbers of a key.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Span, of_dims, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Role, Usual, rows_of

FROZEN_STEPS = 10
"""As many changes must fail to come: at 10 Hz a second, for which a person may hold still, but then nothing moves."""
_LIVELY = 0.05  # of the steps of the median episode may change nothing; of a moving joint's encoder practically none do
_FEW = 0.1  # ordinary steps; others that move less do not count as moving
_MOST = 0.5  # of the steps of a still run in which others must move
_JUMP = 1.5  # times the changes beside it; what sets off from rest, or comes to rest, changes less than these
_NEXT = 4  # changes beside
_PERIODS = range(2, 21)  # of slow streams, in steps
_REGULAR = 0.9  # of the changes of a slow stream come after the same number of steps
_ENOUGH = 20  # changes from which a period is told
_STRIDE = 7  # every so manieth pixel is compared first: frames that differ do so almost everywhere


class StillnessCheck:
    """Finds numbers, and pictures, that stop changing while others move.

    Args:
        usual: of the keys of role action or state.
        roles: of all keys that are read.
    """

    def __init__(self, usual: Mapping[str, Usual], roles: Mapping[str, Role]) -> None:
        self._usual, self._roles = usual, roles
        self._states = [key for key in usual if roles[key] == "state"]
        self._images = [key for key, role in roles.items() if role == "image"]
        self._frozen: dict[tuple[str, int], list[Span]] = {}
        self._repeated: dict[str, list[Span]] = {key: [] for key in self._images}
        self._unchanged: dict[str, list[float]] = {key: [] for key in self._images}
        self._periods: dict[str, Counter[int]] = {key: Counter() for key in [*self._states, *self._images]}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        if len(next(iter(episode.values()))) < 2:
            return
        moves = {key: self._moves(key, episode) for key in self._usual}  # each (T - 1, D)
        others = np.zeros(len(next(iter(episode.values()))) - 1, np.int64)  # (T - 1,) numbers that move
        commanded = np.zeros(len(others), bool)
        for key, each in moves.items():
            others += each.sum(axis=1)
            if self._roles[key] == "action":
                commanded |= each.any(axis=1)
        for key in self._states:
            rows = rows_of(episode[key])
            still = rows[1:] == rows[:-1]  # (T - 1, D)
            self._note_period(key, ~still.all(axis=1), others)
            # at the end of its range a number is clipped, or a joint at its stop
            still &= (rows[1:] != self._usual[key].least) & (rows[1:] != self._usual[key].most)
            for d in np.flatnonzero(self._lively(key) & still.any(axis=0)):
                changes = np.abs(np.diff(rows[:, d])) / self._usual[key].step[d]
                for start, stop in still_runs(still[:, d], others):
                    if jumped(changes, start, stop, commanded):
                        self._frozen.setdefault((key, int(d)), []).append(Span(i, start, stop + 1))
        for key in self._images:
            same = repeats(episode[key])
            self._note_period(key, ~same, others)
            self._unchanged[key].append(float(same.mean()))
            self._repeated[key] += [Span(i, start, stop + 1) for start, stop in still_runs(same, others)]

    def _moves(self, key: str, episode: Episode) -> NDArray[np.bool_]:
        each = self._usual[key]
        with np.errstate(invalid="ignore"):
            change = np.abs(np.diff(rows_of(episode[key])[:, each.moving], axis=0))
        return np.asarray(change > _FEW * each.step[each.moving])

    def _lively(self, key: str) -> NDArray[np.bool_]:
        each = self._usual[key]
        return np.asarray((each.unchanged <= _LIVELY) & (each.step > 0))

    def _note_period(self, key: str, changes: NDArray[np.bool_], others: NDArray[np.int64]) -> None:
        between = np.diff(np.flatnonzero(changes))
        moved = np.cumsum(others > 0)[np.flatnonzero(changes)]  # at least once between two changes
        self._periods[key].update(between[np.diff(moved) > 0].tolist())

    def findings(self) -> list[Finding]:
        """Returns what froze, what repeats, and which streams are slow."""
        slow = {key: period for key, seen in self._periods.items() if (period := slow_period(seen))}
        found = [
            Finding("held", "note", f"{key} changes only every {period}. step: a slower stream", key=key)
            for key, period in slow.items()
        ]
        for key in self._states:
            by_dim = {d: spans for (of, d), spans in self._frozen.items() if of == key}
            if by_dim and key not in slow:
                found.append(_frozen(key, by_dim))
        for key, spans in self._repeated.items():
            if spans and key not in slow and np.median(self._unchanged[key]) <= _LIVELY:
                episodes = tuple(sorted({span.episode for span in spans}))
                longest = max(span.stop - span.start for span in spans)
                what = (
                    f"{key} repeats one picture for up to {longest} steps of {of_episodes(episodes)}, while others move"
                )
                found.append(
                    Finding("repeated-frames", "warning", what, key=key, episodes=episodes, spans=tuple(spans))
                )
        return found


def still_runs(still: NDArray[np.bool_], others: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Returns runs [start, stop) of at least `FROZEN_STEPS` changes that did not come, while others moved.

    Args:
        still: (T - 1,) whether nothing changed.
        others: (T - 1,) how many numbers moved.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    runs = [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2) if stop - start >= FROZEN_STEPS]
    return [(start, stop) for start, stop in runs if (others[start:stop] > 0).mean() >= _MOST]


def jumped(changes: NDArray[np.float64], start: int, stop: int, commanded: NDArray[np.bool_]) -> bool:
    """Returns whether a still run looks like a sensor that failed rather than something at rest.

    Args:
        changes: (T - 1,) magnitudes in ordinary steps.
        start: of the run.
        stop: behind it.
        commanded: (T - 1,) whether actions changed.
    """
    if stop < len(changes):
        after = changes[stop + 1 : stop + 1 + _NEXT]
        return bool(changes[stop] >= _JUMP * (after.max() if len(after) else 1.0))
    before = changes[max(0, start - _NEXT) : start]
    return len(before) > 0 and bool(before[-1] >= before.max() / _JUMP) and bool(commanded[start:stop].mean() >= _MOST)


def repeats(frames: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Returns (T - 1,): whether a picture equals the one before, pixel for pixel.

    Args:
        frames: (T, H, W, C) or (T, C, H, W).
    """
    flat = frames.reshape(len(frames), -1)
    same = (flat[1:, ::_STRIDE] == flat[:-1, ::_STRIDE]).all(axis=1)
    for t in np.flatnonzero(same):
        same[t] = np.array_equal(flat[t], flat[t + 1])
    return np.asarray(same)


def slow_period(between: Mapping[int, int]) -> int | None:
    """Returns after how many steps a stream changes, if that is regular and more than one.

    Args:
        between: how often so many steps lay between two changes.
    """
    total = sum(between.values())
    if total < _ENOUGH:
        return None
    period = max(between, key=lambda steps: between[steps])
    return period if period in _PERIODS and between[period] >= _REGULAR * total else None


def _frozen(key: str, by_dim: Mapping[int, list[Span]]) -> Finding:
    dims = tuple(sorted(by_dim))
    spans = tuple(span for d in dims for span in by_dim[d])
    episodes = tuple(sorted({span.episode for span in spans}))
    longest = max(span.stop - span.start for span in spans)
    what = f"{key}: {of_dims(dims)} stand{'s' if len(dims) == 1 else ''} still for up to {longest} steps of "
    return Finding(
        "frozen",
        "warning",
        f"{what}{of_episodes(episodes)}, while others move; elsewhere practically every step changes them",
        key=key,
        dims=dims,
        episodes=episodes,
        spans=spans,
    )
