"""Statistics of episodes and data sets, as LeRobot 0.4 defines them: its policies are normalised by them.

Quantiles of an episode are read from a histogram of 5,000 bins, those of a data set are the episodes' means, weighted
by their counts; of pictures at most 10,000 frames of an episode are looked at, evenly spread, and of large ones every
few pixels. In one thing these differ on purpose: LeRobot 0.4.4 squares pictures in 8 bits, and the standard deviations
that it writes of pictures are therefore far too small; here they are the real ones.

Letters: T steps of an episode, D numbers of a step, n frames that are looked at.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Stats = dict[str, NDArray[Any]]

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_BINS = 5000
_PADDING = 1e-10  # beyond the extremes, on both sides
_FEWEST, _MOST, _POWER = 100, 10_000, 0.75  # frames of pictures
_NUMBERS = 1_000_003  # of an episode that are looked at, where a step has thousands
_LARGE, _ENOUGH = 300, 150  # pixels of the longer side: from when, and down to what it is thinned out


def of_numbers(values: NDArray[Any]) -> Stats:
    """Returns the statistics (D,) of an episode's numbers (T, D), and its count (1,)."""
    wide = values.astype(np.float64)
    quantiles = [_quantiles(np.sort(column), np.arange(1, len(wide) + 1)) for column in wide.T]  # D of (5,)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(_QUANTILES, np.stack(quantiles, axis=1), strict=True)),
    }


def of_many(values: NDArray[Any]) -> Stats:
    """Returns the statistics (1,) of an episode's numbers (T, D) all together, and its count (1,).

    Of what has more numbers than any state, depth pictures for instance, LeRobot would tell those of each one: its
    normalisation is as well served by one, and meta/ stays smaller than the data. About a million are looked at.
    """
    every = max(1, -(-values.size // _NUMBERS))
    some = values.ravel()[::every]
    extremes = {"min": values.min(keepdims=True)[0], "max": values.max(keepdims=True)[0]}
    return {**of_numbers(some[:, None]), **extremes, "count": np.array([len(values)])}


def of_pictures(pictures: NDArray[np.uint8]) -> Stats:
    """Returns the statistics (C, 1, 1) of an episode's pictures (T, H, W, C), white being 1, and the count (1,)."""
    shown = _sampled(pictures)
    counts = np.stack([np.bincount(shown[..., c].ravel(), minlength=256) for c in range(shown.shape[-1])])  # (C, 256)
    levels = np.arange(256.0)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    found = [np.flatnonzero(count) for count in counts]  # C of the levels that occur
    quantiles = [_quantiles(levels[seen], counts[c, seen].cumsum()) for c, seen in enumerate(found)]
    stats = {
        "min": np.array([seen[0] for seen in found]),
        "max": np.array([seen[-1] for seen in found]),
        "mean": mean,
        "std": np.sqrt(variance),
        **dict(zip(_QUANTILES, np.stack(quantiles, axis=1), strict=True)),
    }
    scaled: Stats = {name: (values / 255.0).reshape(-1, 1, 1) for name, values in stats.items()}
    return {**scaled, "count": np.array([len(shown)])}


def _sampled(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the frames and pixels that are looked at."""
    steps, height, width, _ = pictures.shape
    count = max(min(_FEWEST, steps), min(int(steps**_POWER), _MOST))
    chosen = pictures if count == steps else pictures[np.round(np.linspace(0, steps - 1, count)).astype(int)]
    every = max(height, width) // _ENOUGH if max(height, width) >= _LARGE else 1
    return chosen[:, ::every, ::every]


def _quantiles(values: NDArray[np.float64], upto: NDArray[Any]) -> NDArray[np.float64]:
    """Returns five quantiles, each linear within its bin; the mean where there is one value only, as LeRobot does.

    Args:
        values: sorted.
        upto: how many samples there are up to and with each.
    """
    total = upto[-1]
    if total < 2:
        return np.full(len(_QUANTILES), values[0])
    start = values[0] - _PADDING
    size = (values[-1] + _PADDING - start) / _BINS
    wanted = np.array(list(_QUANTILES.values())) * total
    reached = values[np.searchsorted(upto, wanted)]
    number = np.clip((reached - start) / size if size > 0 else np.full_like(reached, _BINS - 1), 0, _BINS - 1)
    number = np.floor(number)
    left = start + number * size
    before = _count(values, upto, left)
    inside = np.where(number == _BINS - 1, total, _count(values, upto, left + size)) - before
    within = np.clip((wanted - before) / np.maximum(inside, 1), 0, 1)
    found: NDArray[np.float64] = np.where(number == 0, start, left + within * size)
    return found


def _count(values: NDArray[np.float64], upto: NDArray[Any], limit: NDArray[np.float64]) -> NDArray[Any]:
    """Returns how many samples lie below each limit."""
    return np.concatenate([[0], upto])[np.searchsorted(values, limit)]


class Total:
    """The statistics of a data set, from those of its episodes, one after another."""

    def __init__(self) -> None:
        self._sums: dict[str, Stats] = {}

    def add(self, episode: Mapping[str, Stats]) -> None:
        """Takes those of one more episode, {feature: statistics}."""
        for name, stats in episode.items():
            count = stats["count"][0]
            new = {key: values * count for key, values in stats.items() if key not in ("min", "max", "count", "std")}
            new |= {"min": stats["min"], "max": stats["max"], "count": stats["count"]}
            new["square"] = (stats["std"] ** 2 + stats["mean"] ** 2) * count
            old = self._sums.get(name)
            if old is not None:
                new = {key: _MERGED.get(key, np.add)(old[key], values) for key, values in new.items()}
            self._sums[name] = new

    def result(self) -> dict[str, Stats]:
        """Returns {feature: statistics}."""
        found: dict[str, Stats] = {}
        for name, sums in self._sums.items():
            count = sums["count"][0]
            stats = {key: values / count for key, values in sums.items() if key not in ("min", "max", "count")}
            std = np.sqrt(np.maximum(stats.pop("square") - stats["mean"] ** 2, 0))
            found[name] = {"min": sums["min"], "max": sums["max"], **stats, "std": std, "count": sums["count"]}
        return found


_MERGED = {"min": np.minimum, "max": np.maximum}
