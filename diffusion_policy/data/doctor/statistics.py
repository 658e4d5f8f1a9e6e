"""Running statistics of one key. Letters: T steps of an episode."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, of_dims
from diffusion_policy.data.doctor.streams import LOW_DIM_SIZE


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
    non_finite_episodes: list[int] = field(default_factory=list)

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
                self.non_finite_episodes.append(episode)
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


def findings_of(statistics: Mapping[str, KeyStatistics]) -> list[Finding]:
    """Returns numbers that are none, and those that never change."""
    found = []
    for key, each in statistics.items():
        if each.non_finite:
            what = f"{key}: {each.non_finite} numbers are NaN or infinite, first at {each.first_non_finite}"
            episodes = tuple(each.non_finite_episodes)
            found.append(Finding("not-finite", "problem", what, key=key, episodes=episodes))
    for key, each in statistics.items():
        dims = tuple(each.constant)
        if dims and each.low.size <= LOW_DIM_SIZE and each.dtype.kind != "b":
            what = f"{key}: {of_dims(dims)} never change{'s' if len(dims) == 1 else ''} (normalised to zero)"
            found.append(Finding("constant", "note", what, key=key, dims=dims))
    return found
