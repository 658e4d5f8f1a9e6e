"""Whether synthetic transitions are like real ones. Pure statistics of tables; the simulator's are elsewhere.

Neither marginals nor correlations alone show a wrong model: independent columns pass the first, one Gaussian passes the
second. What separates is the error of the dynamics, where a simulator can tell (`training.augmenting.dynamics`), and
copies of real rows show by their distance to the nearest of them.

Letters: N rows, D columns.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from diffusion_policy.augment.augmenter import TransitionModel
from diffusion_policy.augment.baselines import NoiseAugmenter
from diffusion_policy.augment.transitions import Rows, Transitions

Array = NDArray[np.float64]
_HALVINGS = 12


def ks_complement(real: Rows, synthetic: Rows) -> Array:
    """Returns 1 - the Kolmogorov-Smirnov statistic of each column, (D,): 1 where both are distributed alike."""
    found = []
    for mine, theirs in zip(real.T, synthetic.T, strict=True):
        a, b = np.sort(mine), np.sort(theirs)
        points = np.concatenate([a, b])
        shares = [np.searchsorted(each, points, side="right") / len(each) for each in (a, b)]
        found.append(1 - np.abs(shares[0] - shares[1]).max())
    return np.array(found)


def correlation_similarity(real: Rows, synthetic: Rows) -> Array:
    """Returns 1 - half the difference of the correlations of each pair of columns, (P,); 1 where they are equal.

    Pairs with a column that is constant in the real rows are left out; one that is constant only in the synthetic
    ones counts as uncorrelated.
    """
    changing = np.flatnonzero(real.max(axis=0) > real.min(axis=0))
    upper = np.triu_indices(len(changing), k=1)
    mine, theirs = (_correlations(rows[:, changing].astype(np.float64))[upper] for rows in (real, synthetic))
    similar: Array = 1 - np.abs(mine - theirs) / 2
    return similar


def _correlations(rows: Array) -> Array:
    centred = rows - rows.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    unit = centred / np.where(norms > 0, norms, 1.0)
    return np.asarray(unit.T @ unit)


@dataclass(frozen=True)
class Nearest:
    """Distances of rows to the nearest real row, whitened.

    Args:
        synthetic: median of the synthetic rows.
        real: median of real rows, to the nearest other real row.
        copies: share of synthetic rows that are real ones, to a thousandth of `real`.
    """

    synthetic: float
    real: float
    copies: float


class RealRows:
    """Real rows, searched by distance.

    Args:
        model: its whitening is fitted to them.
        real: the rows.
        queries: at most so many rows are asked for at once.
    """

    def __init__(self, model: TransitionModel, real: Transitions, queries: int = 2000) -> None:
        self._model, self._queries = model, queries
        self._rows = model.whitening.whiten(real.rows).numpy()
        self._tree = cKDTree(self._rows)
        asked = self._rows[np.linspace(0, len(self._rows) - 1, min(queries, len(self._rows))).astype(np.int64)]
        self.apart = float(np.median(self._tree.query(asked, k=2)[0][:, 1]))  # the nearest is the row itself

    def distances(self, synthetic: Transitions) -> Array:
        """Returns the distance of the first rows to their nearest real row, (queries,)."""
        asked = self._model.whitening.whiten(synthetic.rows[: self._queries]).numpy()
        return np.asarray(self._tree.query(asked, k=1)[0], np.float64)

    def nearest(self, synthetic: Transitions) -> Nearest:
        """Returns how near synthetic rows are to real ones."""
        found = self.distances(synthetic)
        return Nearest(float(np.median(found)), self.apart, float((found <= 1e-3 * self.apart).mean()))


def noise_as_near(real: Transitions, rows: RealRows, distance: float, noise: NoiseAugmenter, *, seed: int = 0) -> None:
    """Sets the scale of Gaussian noise so that its median nearest-real distance is `distance`; by bisection.

    Args:
        real: the rows that `noise` is fitted to.
        rows: the same, searched.
        distance: wanted, whitened.
        noise: its scale is set.
        seed: of the samples it is tried on.
    """
    low, high = 0.0, max(4 * distance, 1e-6)
    count = min(500, len(real))
    for _ in range(_HALVINGS):
        noise.scale = (low + high) / 2
        nearer = float(np.median(rows.distances(noise.sample(count, seed=seed)))) < distance
        low, high = (noise.scale, high) if nearer else (low, noise.scale)
    noise.scale = (low + high) / 2


@dataclass(frozen=True)
class Fidelity:
    """How alike two tables are.

    Args:
        ks: of each column, by name.
        constant: columns that never change in the real rows, whose 1 nothing could fail.
        correlation_mean: over pairs of columns.
        correlation_min: the worst pair.
        nearest: distances to real rows.
        terminal_rate: real and synthetic; NaN of windows, which have no outcome, as the following.
        reward_mean: likewise.
        reward_std: likewise.
    """

    ks: dict[str, float]
    constant: frozenset[str]
    correlation_mean: float
    correlation_min: float
    nearest: Nearest
    terminal_rate: tuple[float, float]
    reward_mean: tuple[float, float]
    reward_std: tuple[float, float]

    @property
    def ks_mean(self) -> float:
        """Over columns that change."""
        return float(np.mean([value for name, value in self.ks.items() if name not in self.constant] or [1.0]))

    @property
    def ks_min(self) -> float:
        """Of the worst column."""
        return min(self.ks.values())


def fidelity(real: Transitions, synthetic: Transitions, rows: RealRows) -> Fidelity:
    """Returns how alike real and synthetic transitions are.

    Args:
        real: a table.
        synthetic: another with its columns.
        rows: the real rows, searched.
    """
    ks = ks_complement(real.rows, synthetic.rows)
    correlations = correlation_similarity(real.rows, synthetic.rows)
    outcomes = [
        (table.terminated.mean(), table.reward.mean(), table.reward.std())
        if table.columns.outcome
        else (np.nan, np.nan, np.nan)
        for table in (real, synthetic)
    ]
    terminal, mean, std = ((float(one), float(other)) for one, other in zip(*outcomes, strict=True))
    return Fidelity(
        ks=dict(zip(real.columns.names, map(float, ks), strict=True)),
        constant=frozenset(np.array(real.columns.names)[real.rows.max(axis=0) == real.rows.min(axis=0)].tolist()),
        correlation_mean=float(correlations.mean()) if len(correlations) else 1.0,
        correlation_min=float(correlations.min()) if len(correlations) else 1.0,
        nearest=rows.nearest(synthetic),
        terminal_rate=terminal,
        reward_mean=mean,
        reward_std=std,
    )
