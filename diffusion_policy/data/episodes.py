"""Arithmetic on `episode_ends` (M,): exclusive, cumulative step counts, the whole structure of a data set."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import DataError

Ends = NDArray[np.int64]


def checked_ends(ends: NDArray[np.generic], where: str) -> Ends:
    """Returns `ends` as int64 without the zeros that a killed append leaves behind.

    The array of ends grows first and is filled second, so a writer killed in between leaves fill values (zero) at
    its end; every other disorder is damage.

    Args:
        ends: (M,) whole numbers.
        where: the data set's name, for messages.

    Raises:
        DataError: not one axis of whole numbers, or not strictly increasing from at least 1.
    """
    if ends.ndim != 1 or ends.dtype.kind not in "iu":
        raise DataError(
            f"{where}: meta/episode_ends must be whole numbers of shape (M,), but got {ends.dtype} of shape "
            f"{ends.shape}; write the exclusive cumulative episode ends"
        )
    ends64 = ends.astype(np.int64)
    filled = np.flatnonzero(ends64)
    ends64 = ends64[: filled[-1] + 1] if filled.size else ends64[:0]
    falls = np.flatnonzero(np.diff(ends64, prepend=0) <= 0)
    if falls.size:
        i = int(falls[0])
        before = int(ends64[i - 1]) if i else 0
        raise DataError(
            f"{where}: meta/episode_ends must increase strictly, but entry {i} is {int(ends64[i])} after {before}; "
            f"they are exclusive cumulative ends (not lengths), rewrite them"
        )
    return ends64


def starts(ends: Ends) -> Ends:
    """Returns the first step of each episode, (M,)."""
    return np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends


def lengths(ends: Ends) -> Ends:
    """Returns the steps in each episode, (M,)."""
    return ends - starts(ends)


def episode_at(ends: Ends, step: int) -> int:
    """Returns the episode that holds a step."""
    return int(np.searchsorted(ends, step, side="right"))


def spans(ends: Ends, max_steps: int) -> Iterator[tuple[int, int]]:
    """Yields ranges (first, stop) of whole episodes of at most `max_steps` steps, or of one longer episode."""
    first = 0
    while first < len(ends):
        begin = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, begin + max_steps, side="right")))
        yield first, stop
        first = stop


def runs(episodes: Sequence[int] | NDArray[np.integer]) -> list[tuple[int, int]]:
    """Returns sorted episodes as ranges (first, stop) of neighbours: [2, 3, 4, 9] -> [(2, 5), (9, 10)]."""
    chosen = np.asarray(episodes, np.int64)
    if not chosen.size:
        return []
    cuts = np.flatnonzero(np.diff(chosen) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(chosen, cuts)]


def succeeded(success: NDArray[np.generic], ends: Ends) -> NDArray[np.bool_]:
    """Returns which episodes succeeded, (M,): those with a step that says so.

    Args:
        success: (N,) or (N, 1), per step.
        ends: (M,) exclusive, cumulative; no episode is empty.
    """
    return np.logical_or.reduceat(success.reshape(len(success)) != 0, np.concatenate([[0], ends[:-1]]))
