"""What offline RL must be able to believe of a data set: where an episode ended for good, and where it was only cut.

Letters: N steps of all episodes, M episodes, T steps of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.data.episodes import lengths

NEXT = "next_"
"""`next_<key>` (N, *shape) holds what followed each step, where that is more than the next row says: at cut ends."""

_SLACK = 1e-5  # of a bound's or a number's size: what rounding to float32 and back may take
_ENOUGH = 3  # terminated episodes; one or two of the same length are no pattern


def constant_length_terminals(episode_ends: ArrayLike, terminated: ArrayLike) -> int | None:
    """Returns the length at which all terminated episodes end, if that betrays a time limit stored as termination.

    Real terminations (a fall, a success) come at many lengths. When every terminated episode is exactly as long as
    the longest of the data set, a limit cut them; a critic would learn that the world ends there.

    Args:
        episode_ends: (M,) exclusive, cumulative.
        terminated: (N,) per step; only the last step of an episode counts.

    Returns:
        The length in steps; None where there are fewer than three terminated episodes, or they differ in length, or
        others are longer, or none has more than one step.
    """
    ends = np.asarray(episode_ends, np.int64)
    steps = lengths(ends)
    ended = steps[np.asarray(terminated, bool)[ends - 1]] if len(ends) else steps
    # where no episode is longer than a step, they are single transitions, and lengths tell nothing
    if len(ended) < _ENOUGH or (ended != steps.max()).any() or steps.max() == 1:
        return None
    return int(ended[0])


def terminations_inside(episode_ends: ArrayLike, terminated: ArrayLike) -> int:
    """Returns how many steps claim to end an episode that goes on after them.

    Args:
        episode_ends: (M,) exclusive, cumulative.
        terminated: (N,) per step; `truncated` can be counted likewise.
    """
    inside = np.asarray(terminated, bool).copy()
    inside[np.asarray(episode_ends, np.int64) - 1] = False
    return int(inside.sum())


def flag_problems(episode_ends: ArrayLike, flags: Mapping[str, ArrayLike]) -> list[str]:
    """Returns what is wrong with the ends of episodes, one sentence each.

    Args:
        episode_ends: (M,) exclusive, cumulative.
        flags: `terminated` and `truncated`, (N,) each; either may be missing.
    """
    problems = []
    for name, flag in flags.items():
        inside = terminations_inside(episode_ends, flag)
        if inside:
            problems.append(f"{name}: {inside} steps say that their episode ends there, but it goes on; split it there")
    length = constant_length_terminals(episode_ends, flags["terminated"]) if "terminated" in flags else None
    if length is not None:
        problems.append(
            f"terminated: every terminated episode has {length} steps, as many as the longest: a time limit stored as "
            f"termination (detected: constant-length terminals); store these ends as truncated, or a critic learns "
            f"that nothing follows"
        )
    return problems


def bounds_problem(
    low: NDArray[np.floating], high: NDArray[np.floating], bounds: Sequence[Sequence[float]]
) -> str | None:
    """Returns which actions lie outside their bounds, in a sentence; None if none do.

    Args:
        low: (Da,) the smallest of the data.
        high: (Da,) the largest.
        bounds: [low, high] of the environment, Da numbers each.
    """
    least, most = (np.asarray(bound, np.float64) for bound in bounds)
    if least.shape != low.shape:
        return f"action: has {len(low)} numbers, but the environment takes {len(least)}"
    slack = _SLACK * np.maximum(1.0, np.maximum(np.abs(least), np.abs(most)))
    outside = np.flatnonzero((low < least - slack) | (high > most + slack))
    if not outside.size:
        return None
    i = int(outside[0])
    return (
        f"action: {outside.size} of {len(low)} numbers lie outside their bounds, e.g. number {i} in [{low[i]:.4g}, "
        f"{high[i]:.4g}], bounds [{least[i]:.4g}, {most[i]:.4g}]; other units, or actions from before they were clipped"
    )


def next_mismatches(episode: Mapping[str, NDArray[np.generic]], key: str) -> int:
    """Returns at how many steps of an episode `next_<key>` is not what the following step holds as `<key>`.

    Args:
        episode: {key: (T, *shape)} with both; the last step has no row to compare with.
        key: of the observation.
    """
    now, told = (np.asarray(episode[name], np.float64) for name in (key, NEXT + key))
    return mismatches(told[:-1], now[1:])


def mismatches(told: NDArray[Any], seen: NDArray[Any]) -> int:
    """Returns in how many of n rows two arrays (n, *shape) differ by more than rounding."""
    if not len(told):
        return 0
    close = np.isclose(told, seen, rtol=_SLACK, atol=_SLACK)
    return int((~close.reshape(len(close), -1).all(axis=1)).sum())
