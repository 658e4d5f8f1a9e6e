"""By how many steps the state follows the action, where both are comparable.

An action that is a target is compared with the state itself, one that is a velocity or a change with the change of
the state: for each number of the action the state's number that it moves most like, at that shift in time where both
agree best. An action and the state that it commands agree after one step or more; a change of state agrees with its
action after none. Letters: T steps of an episode, A and S numbers of actions and states, L shifts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Severity
from diffusion_policy.data.doctor.streams import Episode, Role, Usual, rows_of
from diffusion_policy.data.doctor.units import FACTORS

SHIFTS = range(-4, 17)
"""Steps by which the state is taken later than the action."""
_EPISODES = 100  # from which the lag is told, spread over the data set; more sharpen nothing
_SIZE = 64  # numbers of actions, and of states, that are compared at most
_ALIKE = 0.9  # correlation; slow motion reaches 0.98, and in a gait all swings like all else at some shift, up to 0.85
_CERTAIN = 0.98  # correlation from which a state ahead of its action is believed
_SLOPE = 1.4  # at most, and its inverse at least: a target and its state have the same unit
_EQUAL = 1.1  # how far the ratio of a state to its action may be from a factor between units
_NAMED = 4  # pairs that a sentence lists
_LONG = 8  # steps: a chunk, by default; its first effect would show after its last action
_SAME = 0.5  # of the steps at which an action changes it equals the state to the last bit: it is a copy, if it also
_MOVED_ALIKE = 0.98  # correlates so: switches and what is held at a bound are often equal, too


@dataclass
class _Sums:
    """Sums over the steps of all episodes, for each shift."""

    product: NDArray[np.float64]  # (L, A, S)
    action: NDArray[np.float64]  # (L, A)
    state: NDArray[np.float64]  # (L, S)

    @classmethod
    def of(cls, actions: int, states: int) -> "_Sums":
        count = len(SHIFTS)
        return cls(np.zeros((count, actions, states)), np.zeros((count, actions)), np.zeros((count, states)))

    def add(self, actions: NDArray[np.float64], states: NDArray[np.float64]) -> None:
        """Takes in an episode, (T, A) and (T, S)."""
        count = len(actions)
        for at, shift in enumerate(SHIFTS):
            a, s = actions[max(0, -shift) : count - max(0, shift)], states[max(0, shift) : count + min(0, shift)]
            if len(a) < 2 or len(a) != len(s):
                continue
            a, s = a - a.mean(axis=0), s - s.mean(axis=0)
            self.product[at] += a.T @ s
            self.action[at] += (a**2).sum(axis=0)
            self.state[at] += (s**2).sum(axis=0)

    def correlation(self) -> NDArray[np.float64]:
        """Returns (L, A, S)."""
        scale = np.sqrt(self.action[:, :, None] * self.state[:, None, :])
        return np.divide(self.product, scale, out=np.zeros_like(self.product), where=scale > 0)

    def slope(self) -> NDArray[np.float64]:
        """Returns (L, A, S): how much the state changes for a change of 1 of the action."""
        whole = np.broadcast_to(self.action[:, :, None], self.product.shape)
        return np.divide(self.product, whole, out=np.zeros_like(self.product), where=whole > 0)


@dataclass(frozen=True)
class Follows:
    """One number of the action and the number of the state that follows it.

    Args:
        action: key and number.
        state: likewise.
        kind: whether the action is a target ("target") or a velocity or change ("change").
        lag: steps after which the state agrees best.
        correlation: there.
        slope: of the state over the action.
        curve: (L,) correlations over `SHIFTS`, for plots.
    """

    action: tuple[str, int]
    state: tuple[str, int]
    kind: str
    lag: int
    correlation: float
    slope: float
    curve: NDArray[np.float64]

    @property
    def ahead(self) -> bool:
        """Whether the state moves before the action."""
        return self.lag < (1 if self.kind == "target" else 0)

    @property
    def certain(self) -> bool:
        """Whether a state ahead of its action is no feedback: torques follow the state that they are computed from."""
        return (self.kind == "change" or self.in_units) and self.correlation >= _CERTAIN

    @property
    def in_units(self) -> bool:
        """Whether action and state have the same unit, as a target and what follows it."""
        return 1 / _SLOPE < self.slope < _SLOPE


class LagCheck:
    """Finds how far states lag behind actions.

    Args:
        usual: of the keys of role action or state.
        roles: of all keys that are read.
        count: episodes of the data set.
    """

    def __init__(self, usual: Mapping[str, Usual], roles: Mapping[str, Role], count: int) -> None:
        def places(role: Role) -> list[tuple[str, int]]:
            keys = [key for key in usual if roles[key] == role]
            return [(key, int(d)) for key in keys for d in np.flatnonzero(usual[key].step > 0)][:_SIZE]

        self._actions, self._states = places("action"), places("state")
        self._chosen = set(np.linspace(0, count - 1, min(count, _EPISODES)).round().astype(int).tolist())
        self._targets = _Sums.of(len(self._actions), len(self._states))
        self._changes = _Sums.of(len(self._actions), len(self._states))
        self._equal = np.zeros((len(self._actions), len(self._states)))
        self._moves = np.zeros(len(self._actions))

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode, if it is one of those that are looked at."""
        if i not in self._chosen or not (self._actions and self._states):
            return
        actions, states = _columns(episode, self._actions), _columns(episode, self._states)
        if len(actions) < 2 * SHIFTS.stop or not (np.isfinite(actions).all() and np.isfinite(states).all()):
            return
        self._targets.add(actions, states)
        self._changes.add(actions[:-1], np.diff(states, axis=0))
        changed = np.diff(actions, axis=0) != 0  # (T - 1, A)
        same = (actions[1:, :, None] == states[1:, None, :]) & changed[:, :, None]
        self._equal += same.sum(axis=0)  # (A, S)
        self._moves += changed.sum(axis=0)

    def follows(self) -> list[Follows]:
        """Returns the numbers of the action that the state follows, after all episodes.

        Each is the other's best: fingers that close together would else seem to follow each other's commands.
        """
        found: list[Follows] = []
        for kind, sums in (("target", self._targets), ("change", self._changes)):
            curves, slopes = sums.correlation(), sums.slope()
            best = curves.max(axis=0)  # (A, S)
            for a, action in enumerate(self._actions):
                if best.shape[1] == 0 or any(each.action == action for each in found):
                    continue
                s = int(best[a].argmax())
                at = int(curves[:, a, s].argmax())
                if best[a, s] < max(_ALIKE, best[:, s].max()) or not 0 < at < len(SHIFTS) - 1:  # no peak at the rim
                    continue
                curve, slope = curves[:, a, s], float(slopes[at, a, s])
                each = Follows(action, self._states[s], kind, SHIFTS[at], float(best[a, s]), slope, curve)
                if not each.ahead or each.certain:
                    found.append(each)
        return found

    def findings(self) -> list[Finding]:
        """Returns how far states lag, and actions that are copies of the state."""
        equal = (self._equal >= _SAME * self._moves[:, None]) & (self._moves[:, None] > 0)
        copies = np.argwhere(equal & (self._targets.correlation()[SHIFTS.index(0)] >= _MOVED_ALIKE))
        copied = {self._actions[a]: self._states[s] for a, s in copies}
        found = []
        for (key, d), state in copied.items():
            what = f"{key}[{d}] is {_place(state)} of the same step: no command but a copy"
            found.append(Finding("lag", "warning", what, key=key, dims=(d,)))
        groups: dict[tuple[str, Severity], list[Follows]] = {}
        for each in self.follows():
            if each.action not in copied:
                groups.setdefault((each.kind, _severity(each)), []).append(each)
        return [*found, *(_lagging(severity, group) for (_, severity), group in groups.items()), *self._units()]

    def _units(self) -> list[Finding]:
        found = []
        for each in self.follows():
            slope = abs(each.slope)
            ratio = max(slope, 1 / slope)
            like = [name for name, factor in FACTORS.items() if 1 / _EQUAL < ratio / factor < _EQUAL]
            if each.kind == "target" and like:
                what = f"{_place(each.state)} is {each.slope:.4g} times {_place(each.action)}, as {like[0]} are"
                found.append(Finding("units", "note", what, key=each.action[0], dims=(each.action[1],)))
        return found


def _severity(each: Follows) -> Severity:
    # in a swing without targets, all swings like all else at some shift
    late = each.lag > _LONG and each.kind == "target" and each.in_units
    return "warning" if each.ahead or late else "note"


def _lagging(severity: Severity, group: Sequence[Follows]) -> Finding:
    dims = tuple(sorted(each.action[1] for each in group))
    least = min(each.correlation for each in group)
    how = "changes as" if group[0].kind == "change" else "follows"
    pairs = [f"{_place(each.state)} {how} {_place(each.action)} by {each.lag}" for each in group]
    said = ", ".join(pairs[:_NAMED]) + (f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else "")
    what = f"{said} (steps; correlation at least {least:.2f})"
    return Finding("lag", severity, what, key=group[0].action[0], dims=dims)


def _place(place: tuple[str, int]) -> str:
    return f"{place[0]}[{place[1]}]"


def _columns(episode: Episode, places: Sequence[tuple[str, int]]) -> NDArray[np.float64]:
    """Returns (T, len(places))."""
    rows = {key: rows_of(episode[key]) for key in dict.fromkeys(key for key, _ in places)}
    return np.stack([rows[key][:, d] for key, d in places], axis=1)
