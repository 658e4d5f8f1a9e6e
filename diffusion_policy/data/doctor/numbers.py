"""Single numbers of a step: those that are the same as others, and values far outside the usual range.

Letters: T steps of an episode, D numbers of a key.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Places, of_dims, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Role, Usual, rows_of

_OUTLIER_RANGES = 10.0  # times the span between the 1st and 99th percentile, beyond the median
_OUTLIER_SHARE = 1e-4  # of the median's size, at least: a setting that is kept but for its last digits has none
_NAMED = 4  # duplicates that a sentence lists


class DuplicatedCheck:
    """Finds numbers that equal another number of the same step at every step.

    Args:
        roles: of all keys that are read.
    """

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self._keys = [key for key, role in roles.items() if role in ("action", "state")]
        self._hashes: dict[str, list[hashlib.blake2b]] = {}
        self._first: dict[str, NDArray[np.float64]] = {}
        self._constant: dict[str, NDArray[np.bool_]] = {}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key in self._keys:
            columns = np.ascontiguousarray(rows_of(episode[key]).T) + 0.0  # (D, T); -0 becomes 0
            if key not in self._hashes:
                self._hashes[key] = [hashlib.blake2b(digest_size=16) for _ in columns]
                self._first[key] = columns[:, :1].copy()
                self._constant[key] = np.ones(len(columns), bool)
            self._constant[key] &= (columns == self._first[key]).all(axis=1)
            for state, column in zip(self._hashes[key], columns, strict=True):
                state.update(column.data)

    def findings(self) -> list[Finding]:
        """Returns numbers that stand twice; constant ones are another finding's."""
        groups: dict[bytes, list[tuple[str, int]]] = {}
        for key in sorted(self._hashes, key=lambda key: (key != "action", key)):
            for d, state in enumerate(self._hashes[key]):
                if not self._constant[key][d]:
                    groups.setdefault(state.digest(), []).append((key, d))
        again = [(twin, group[0]) for group in groups.values() for twin in group[1:]]
        by_key: dict[str, list[tuple[int, str]]] = {}
        for (key, d), (other, e) in again:
            by_key.setdefault(key, []).append((d, f"{key}[{d}] is {other}[{e}]"))
        found = []
        for key, twins in by_key.items():
            named = ", ".join(said for _, said in twins[:_NAMED]) + (" ..." if len(twins) > _NAMED else "")
            dims = tuple(sorted(d for d, _ in twins))
            found.append(Finding("duplicated", "note", f"{named}: the same at every step", key=key, dims=dims))
        return found


class OutlierCheck:
    """Finds single numbers far from all others: they would set the limits that the normaliser scales by.

    Args:
        usual: of the keys of role action or state.
    """

    def __init__(self, usual: Mapping[str, Usual]) -> None:
        self._usual = {key: each for key, each in usual.items() if (each.span > 0).any()}
        self._places = {key: Places() for key in self._usual}
        self._most: dict[str, dict[int, float]] = {key: {} for key in self._usual}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key, each in self._usual.items():
            rows = rows_of(episode[key])
            reach = np.maximum(_OUTLIER_RANGES * each.span, _OUTLIER_SHARE * np.abs(each.middle))
            reach = np.where(each.span > 0, reach, np.inf)
            far = np.isfinite(rows) & (np.abs(rows - each.middle) > reach)
            self._places[key].extend(i, np.asarray(far.any(axis=1)))
            for d in np.flatnonzero(far.any(axis=0)):
                most = float(rows[np.where(far[:, d], np.abs(rows[:, d] - each.middle[d]), 0).argmax(), d])
                before = self._most[key].get(int(d), float(each.middle[d]))
                farther = abs(most - each.middle[d]) > abs(before - each.middle[d])
                self._most[key][int(d)] = most if farther else before

    def findings(self) -> list[Finding]:
        """Returns a finding for each key with outliers."""
        found = []
        for key, most in self._most.items():
            if not most:
                continue
            each, places, dims = self._usual[key], self._places[key], tuple(sorted(most))
            d = dims[0]
            what = (
                f"{key}: {of_dims(dims)} reach{'es' if len(dims) == 1 else ''} far outside the usual range in "
                f"{of_episodes(places.episodes)} (up to {most[d]:.4g}, while 98 % lie in {each.low[d]:.4g} .. "
                f"{each.high[d]:.4g})"
            )
            spans = tuple(places.spans)
            found.append(
                Finding("outliers", "warning", what, key=key, dims=dims, episodes=places.episodes, spans=spans)
            )
        return found
