"""How sure a number is: intervals for rates, means and paired differences.

Letters: M episodes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from diffusion_policy.errors import ConfigError

_RESAMPLES = 9999
_SEED = 0  # the same episodes give the same interval


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval that holds the true one in 95 of 100 such experiments."""

    mean: float
    ci95: tuple[float, float]

    def to_dict(self) -> dict[str, float | list[float]]:
        """Returns what eval.json holds."""
        return {"mean": self.mean, "ci95": list(self.ci95)}


def wilson_rate(outcomes: Sequence[bool]) -> Estimate:
    """Returns the rate of True with Wilson's interval (Wilson 1927), which is honest near 0 and 1.

    Args:
        outcomes: M of them, at least one.
    """
    _check(len(outcomes))
    successes = int(np.count_nonzero(outcomes))
    interval = stats.binomtest(successes, len(outcomes)).proportion_ci(0.95, method="wilson")
    return Estimate(successes / len(outcomes), (float(interval.low), float(interval.high)))


def bootstrap_mean(values: Sequence[float]) -> Estimate:
    """Returns the mean with a bias-corrected and accelerated bootstrap interval (Efron 1987).

    Values that are all equal (a single one, too) carry no information about their spread: the interval is then
    that value.

    Args:
        values: M numbers, at least one.
    """
    _check(len(values))
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean())
    if np.ptp(data) <= 1e-12 * max(1.0, float(np.abs(data).max())):
        return Estimate(mean, (mean, mean))
    interval = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, 2_000_000 // len(data)),  # 16 MB of resampled values at a time
        random_state=np.random.default_rng(_SEED),
    ).confidence_interval
    return Estimate(mean, (float(interval.low), float(interval.high)))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Returns the mean of `second - first`, episode by episode: far sharper than two separate intervals.

    Args:
        first: M numbers, one a seed.
        second: M numbers of the same seeds in the same order.

    Raises:
        ConfigError: the lengths differ.
    """
    if len(first) != len(second):
        raise ConfigError(
            f"a paired comparison needs the same seeds on both sides, but got {len(first)} and {len(second)}"
        )
    return bootstrap_mean(np.subtract(second, first).tolist())


def percentiles(values: Iterable[float], at: Sequence[int] = (50, 95, 99)) -> dict[str, float | None]:
    """Returns {"p50": ..., ...}; None each when there are no values."""
    data = np.fromiter(values, dtype=np.float64)
    return {f"p{q}": float(np.percentile(data, q)) if len(data) else None for q in at}


def _check(count: int) -> None:
    if count < 1:
        raise ConfigError("an estimate needs at least one episode, but got none")
