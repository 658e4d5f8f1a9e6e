"""How a task was done, beside whether: which of several equally good ways, and which of its parts.

Letters: K behaviours, M episodes.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion_policy.rollout.episode import EpisodeResult
from diffusion_policy.rollout.statistics import wilson_rate

_DRAWS = 2000


def behavior_summary(episodes: Sequence[EpisodeResult], names: Sequence[str]) -> dict[str, Any]:
    """Returns how evenly an evaluation went the ways that there are; empty where the environment names none.

    Counted are episodes that succeeded (all, where the environment does not say). The entropy is in units of log K: 1
    where all ways are equally frequent, 0 where there is one. Few episodes cannot be spread evenly over many ways:
    `entropy_if_uniform` is what so many episodes of a perfectly even policy have on average.

    Args:
        episodes: the finished ones.
        names: the K behaviours that the environment knows.
    """
    if len(names) < 2:
        return {}
    seen = [each.behavior for each in episodes if each.behavior and each.success is not False]
    counts = Counter(seen)
    known = {name: counts.pop(name, 0) for name in names} | dict(counts)
    rng = np.random.default_rng(0)
    even = rng.multinomial(len(seen), np.full(len(names), 1 / len(names)), size=_DRAWS)  # (_DRAWS, K)
    return {
        "counts": known,
        "entropy": normalized_entropy(list(known.values()), len(names)),
        "entropy_if_uniform": float(np.mean([normalized_entropy(row, len(names)) for row in even])),
    }


def normalized_entropy(counts: Sequence[int] | np.ndarray, ways: int) -> float:
    """Returns the entropy of counts over log(ways); 0 where nothing was counted."""
    share = np.asarray(counts, np.float64)
    share = share[share > 0] / max(1.0, share.sum())
    return float(-(share * np.log(share)).sum() / np.log(ways)) + 0.0  # no negative zero


def subgoal_summary(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Returns the rate of each part of the task, and of `at_least` k of them; empty where there are none."""
    reached = [each.subgoals for each in episodes if each.subgoals]
    if not reached:
        return {}
    names = list(reached[0])
    done = [sum(map(bool, each.values())) for each in reached]
    rates = {name: wilson_rate([bool(each.get(name)) for each in reached]).to_dict() for name in names}
    at_least = {str(k): wilson_rate([count >= k for count in done]).to_dict() for k in range(1, len(names) + 1)}
    return {"each": rates, "at_least": at_least}
