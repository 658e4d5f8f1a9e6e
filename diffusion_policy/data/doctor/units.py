"""Units that may be mixed or odd: ranges that differ between episodes, angles that wrap, quaternions, pixels.

Letters: M episodes, T steps of one, D numbers of a key.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Places, Severity, counted, of_dims, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Role, Usual, rows_of

FACTORS = {"degrees and radians": 180 / np.pi, "mm and m": 1000.0, "cm and m": 100.0, "0-255 and 0-1": 255.0}
"""How much larger the same value is in the first unit than in the second."""
_SIZE = 90  # percentile of magnitudes that is the size of an episode: a few outliers do not change it
_LIKE = 1.7  # how far the ratio of two groups may be from such a factor: episodes differ in size, too ...
_ALONE = 1.4  # ... where only one number tells of it: different robots, or drivers, split single numbers, too
_CLIPPED = 0.05  # of the episodes reach the end of the range for a tenth of their time: sizes say nothing there
_APART = 5.0  # between the largest of the smaller group and the smallest of the larger: sizes vary without a hole
_PERIODS = {"radians": 2 * np.pi, "degrees": 360.0}
_TURN = 0.9  # of a period in one step is no motion
_CALM = 0.25  # of a period in one step is: what turns goes on before and after as it did
_UNIT = 1e-3  # of a quaternion's norm: more than float32 leaves, less than a rotation that was averaged
_BROKEN = 1e-2  # a norm that far off is no rounding
_MOSTLY = 0.9  # of the steps have norm 1: four numbers that are a quaternion
_FLIP = -0.5  # product of two neighbours: less than a turn of 240 degrees in a step


class UnitsCheck:
    """Finds groups of episodes whose numbers differ by a factor between units, and angles that wrap around.

    Args:
        usual: of the keys of role action or state.
    """

    def __init__(self, usual: Mapping[str, Usual]) -> None:
        self._usual = usual
        self._sizes: dict[str, list[NDArray[np.float64]]] = {key: [] for key in usual}
        self._wraps: dict[tuple[str, str], dict[int, Places]] = {}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key in self._usual:
            rows = rows_of(episode[key])
            with np.errstate(invalid="ignore"):
                self._sizes[key].append(np.percentile(np.abs(rows), _SIZE, axis=0).astype(np.float32))
                jumps = np.abs(np.diff(rows, axis=0))
            for unit, period in _PERIODS.items():
                if not (jumps > _TURN * period).any():
                    continue
                near = _going_on(jumps, (jumps > _TURN * period) & (jumps <= period * 1.001), period)
                for d in np.flatnonzero(near.any(axis=0)):
                    places = self._wraps.setdefault((key, unit), {}).setdefault(int(d), Places())
                    places.extend(i, near[:, d], 2)

    def findings(self) -> list[Finding]:
        """Returns mixed units and wrapping angles."""
        return [each for key in self._usual for each in (*self._mixed(key), *self._wrapping(key))]

    def _mixed(self, key: str) -> list[Finding]:
        sizes = np.array(self._sizes[key])  # (M, D)
        groups: dict[tuple[int, ...], dict[int, float]] = {}
        most = np.maximum(np.abs(self._usual[key].least), np.abs(self._usual[key].most)).astype(np.float32)
        clipped = (sizes >= most).mean(axis=0) > _CLIPPED
        for d in np.flatnonzero(~clipped).tolist():
            split = size_groups(sizes[:, d])
            if split is not None:
                groups.setdefault(split[0], {})[d] = split[1]
        found = []
        for odd, ratios in groups.items():
            units = units_of(list(ratios.values()))
            if units is not None:
                dims = tuple(ratios)
                what = f"{key}: {of_dims(dims)} of {of_episodes(odd)} differ{'s' if len(dims) == 1 else ''} in size "
                what += f"from the others as {units} do"
                found.append(Finding("units", "warning", what, key=key, dims=dims, episodes=odd))
        return found

    def _wrapping(self, key: str) -> list[Finding]:
        found = []
        for unit, period in _PERIODS.items():
            by_dim = self._wraps.get((key, unit), {})
            # an angle lies within one turn; anything else merely jumps. It need not be there often
            reach = self._usual[key].most - self._usual[key].least
            dims = tuple(d for d in sorted(by_dim) if period * _TURN <= reach[d] <= period * 1.001)
            if dims:
                spans = tuple(span for d in dims for span in by_dim[d].spans)
                episodes = tuple(sorted({i for d in dims for i in by_dim[d].episodes}))
                count = sum(by_dim[d].count for d in dims)
                what = f"{key}: {of_dims(dims)} jump{'s' if len(dims) == 1 else ''} by a turn ({unit}) at "
                what += f"{counted(count, 'step')} of {of_episodes(episodes)}"
                found.append(Finding("wraps", "note", what, key=key, dims=dims, episodes=episodes, spans=spans))
        return found


def _going_on(jumps: NDArray[np.float64], turns: NDArray[np.bool_], period: float) -> NDArray[np.bool_]:
    """Returns which turns (T - 1, D) have no other jump beside them: an impact goes to both ends of a range, too."""
    calm = (jumps <= _CALM * period) | turns
    edge = np.ones((1, jumps.shape[1]), bool)
    return np.asarray(turns & np.concatenate([edge, calm[:-1]]) & np.concatenate([calm[1:], edge]))


def size_groups(sizes: NDArray[np.floating]) -> tuple[tuple[int, ...], float] | None:
    """Returns the smaller of two groups of episodes whose sizes lie far apart, and how far; None where they do not.

    Args:
        sizes: (M,) of one number in each episode.
    """
    known = np.flatnonzero(np.isfinite(sizes) & (sizes > 0))
    if len(known) < 3:
        return None
    order = known[np.argsort(sizes[known])]
    holes = sizes[order[1:]] / sizes[order[:-1]]
    cut = int(np.argmax(holes)) + 1
    if holes[cut - 1] < _APART:
        return None
    small, large = order[:cut], order[cut:]
    ratio = float(np.median(sizes[large]) / np.median(sizes[small]))
    rarer = small if len(small) < len(large) else large
    return tuple(sorted(int(i) for i in rarer)), ratio


def units_of(ratios: Sequence[float]) -> str | None:
    """Returns the units that differ by about such factors; None if none do.

    Args:
        ratios: of each number that tells of it.
    """
    ratio = float(np.exp(np.mean(np.log(ratios))))
    name = min(FACTORS, key=lambda each: abs(np.log(ratio / FACTORS[each])))
    like = _LIKE if len(ratios) > 1 else _ALONE
    return name if FACTORS[name] / like <= ratio <= FACTORS[name] * like else None


class QuaternionCheck:
    """Finds quaternions, four neighbouring numbers of norm 1, and where they are none or change their sign.

    Args:
        usual: of the keys of role action or state.
        shapes: of one step of these keys.
    """

    def __init__(self, usual: Mapping[str, Usual], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._usual = usual
        self._named = {key: "quat" in key.lower() and (shapes[key] or (1,))[-1] == 4 for key in usual}
        self._places = {key: _windows(each, self._named[key]) for key, each in usual.items()}
        self._rows: dict[str, int] = dict.fromkeys(usual, 0)
        self._broken: dict[tuple[str, int], Places] = {}
        self._fine: dict[tuple[str, int], int] = {}
        self._flips: dict[tuple[str, int], Places] = {}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key, places in self._places.items():
            rows = rows_of(episode[key]) if places else np.zeros((0, 4))
            self._rows[key] += len(rows)
            for first in places:
                four = rows[:, first : first + 4]
                with np.errstate(invalid="ignore", over="ignore"):
                    off = np.abs(np.linalg.norm(four, axis=1) - 1)
                    turns = (four[1:] * four[:-1]).sum(axis=1)
                place = key, first
                self._fine[place] = self._fine.get(place, 0) + int((off <= _UNIT).sum())
                if not self._possible(place):
                    continue
                self._broken.setdefault(place, Places()).extend(i, off > _BROKEN)
                both = (off[1:] <= _BROKEN) & (off[:-1] <= _BROKEN)
                self._flips.setdefault(place, Places()).extend(i, both & (turns < _FLIP), 2)

    def _possible(self, place: tuple[str, int]) -> bool:
        """Returns whether so many norms are 1 by now that it may be a quaternion: others note nothing."""
        return self._named[place[0]] or self._fine[place] >= _MOSTLY * self._rows[place[0]]

    def findings(self) -> list[Finding]:
        """Returns broken norms, and changes of sign."""
        found = []
        for place in self._fine:
            if not self._possible(place):
                continue
            broken, flips = self._broken.get(place, Places()), self._flips.get(place, Places())
            if broken.count:
                found.append(_quaternion(place, "problem", "has a norm other than 1", broken))
            if flips.count:
                found.append(_quaternion(place, "warning", "changes its sign", flips))
        return found


def _windows(each: Usual, named: bool) -> list[int]:
    """Returns where quaternions may begin: four neighbours within [-1, 1] of which three change."""
    size = len(each.low)
    if named:
        return list(range(0, size - 3, 4))
    inside = (each.low >= -1 - _UNIT) & (each.high <= 1 + _UNIT)
    return [d for d in range(size - 3) if inside[d : d + 4].all() and (each.span[d : d + 4] > 0).sum() >= 3]


def _quaternion(place: tuple[str, int], severity: Severity, what: str, places: Places) -> Finding:
    key, first = place
    episodes = places.episodes
    said = f"{key}[{first}:{first + 4}], a quaternion, {what} at {counted(places.count, 'step')} of "
    said += of_episodes(episodes)
    dims = tuple(range(first, first + 4))
    return Finding("quaternions", severity, said, key=key, dims=dims, episodes=episodes, spans=tuple(places.spans))


class PixelCheck:
    """Finds pictures that are stored as floats up to 1, in all episodes or in some.

    Args:
        roles: of all keys that are read.
    """

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self._brightest: dict[str, list[float]] = {key: [] for key, role in roles.items() if role == "image"}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key, found in self._brightest.items():
            found.append(float(episode[key].max()) if episode[key].dtype.kind == "f" else 255.0)

    def findings(self) -> list[Finding]:
        """Returns which pictures are in other units."""
        found = []
        for key, each in self._brightest.items():
            bright = np.array(each)
            low = np.flatnonzero((bright > 0) & (bright <= 1))
            if not len(low):
                continue
            if len(low) < np.count_nonzero(bright):
                episodes = tuple(low.tolist())
                what = f"{key} goes up to 1 in {of_episodes(episodes)} and to {bright.max():g} in others"
                found.append(Finding("pixels", "problem", what, key=key, episodes=episodes))
            else:
                found.append(Finding("pixels", "warning", f"{key} holds floats up to 1, not 0-255", key=key))
        return found
