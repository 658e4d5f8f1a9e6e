"""Which rows each gradient step sees where several data sets have weights: a pure function of (seed, step).

Letters: K sets, W rows of all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import ConfigError

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Shares:
    """What each of several data sets gives to the batches.

    Args:
        names: (K,) of the sets, for messages.
        sizes: (K,) how many rows each has; the rows of the first set are numbered first.
        weights: (K,) positive, any sum.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    def rows(self) -> Ids:
        """Returns how many rows of an epoch each set gives (K,): whole ones, the largest remainders rounded up.

        Raises:
            ConfigError: a weight is so small that it gives none.
        """
        total = sum(self.sizes)
        due = np.asarray(self.weights) / sum(self.weights) * total
        given = np.floor(due).astype(np.int64)
        given[np.argsort(given - due, kind="stable")[: total - given.sum()]] += 1
        if not given.all():
            k = int(given.argmin())
            raise ConfigError(
                f"dataset: weight {self.weights[k]:g} of {self.names[k]} gives it none of the {total} rows of an "
                f"epoch; raise it, or leave the set out"
            )
        return given


class WeightedOrder:
    """An epoch has as many rows as the sets have together; each set gives its share of it, spread evenly.

    So every batch holds the shares too: of two sets to less than a row, of more to a row or two. A set's rows come in
    endless permutations: none a second time before all others had their turn, whatever the share.

    Args:
        shares: sizes and weights.
        batch_size: rows a step; the last step of an epoch sees the rest.
        seed: of the permutations.
        whole: leave out that rest, so that all batches are of one size.
    """

    def __init__(self, shares: Shares, batch_size: int, seed: int, *, whole: bool = False) -> None:
        total = sum(shares.sizes)
        self.batch_size = min(batch_size, total)
        self.steps_per_epoch = total // self.batch_size if whole else math.ceil(total / self.batch_size)
        self._sizes, self._rows, self._seed = shares.sizes, shares.rows().tolist(), seed
        self._firsts = (np.cumsum(shares.sizes) - shares.sizes).tolist()
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def batch(self, grad_step: int) -> Ids:
        """Returns the numbers (B,) of the rows of a gradient step."""
        epoch, position = divmod(grad_step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            drawn = [self._drawn(k, epoch * rows, rows) for k, rows in enumerate(self._rows)]
            self._order = np.concatenate(drawn)[_spread(self._rows)]
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]

    def _drawn(self, k: int, start: int, count: int) -> Ids:
        """Returns entries [start, start + count) of the endless permutations of set k."""
        first, last = start // self._sizes[k], (start + count - 1) // self._sizes[k]
        turns = [np.random.default_rng((self._seed, k, n)).permutation(self._sizes[k]) for n in range(first, last + 1)]
        begin = start - first * self._sizes[k]
        drawn: Ids = self._firsts[k] + np.concatenate(turns)[begin : begin + count]
        return drawn


def _spread(rows: Sequence[int]) -> Ids:
    """Returns the order in which rows, set after set, lie spread evenly: that of the middles of equal parts of a line.

    Args:
        rows: (K,) of each set.
    """
    middles = np.concatenate([(np.arange(count) + 0.5) / count for count in rows])
    return np.argsort(middles, kind="stable")
