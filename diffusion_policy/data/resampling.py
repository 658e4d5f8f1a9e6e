"""An episode at another rate: what each kind of number becomes.

A row holds what was seen at its time and what was done until the next row. So with edges e of the old steps and E of
the new ones:

    states          seen at E[k]: linear between old rows; declared rotations along the shortest arc; switches (two
                    values in an episode, or declared as held), whole numbers, booleans and pictures: the nearest old
                    row
    targets         (actions of kind absolute) where the robot shall be at the end of a step, E[k + 1]: linear
    deltas          (kind delta) the sum of what was commanded between E[k] and E[k + 1]: together they lead as far
    rates           (kind rate: velocities, torques) the mean over that time
    rewards         the sum of those that came in that time: the return stays what it was
    flags           whether any of that time said so

The last new step takes in all that is left. `next_<key>` told what followed an old step; it is left out.
Letters: T old rows, K new ones, D numbers of a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.streams import Role
from diffusion_policy.data.rotations_between import FORMS, RotationForm, turned
from diffusion_policy.data.source import Source
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError

ActionKind = Literal["absolute", "delta", "rate"]
PartForm = RotationForm | Literal["held"]
Floats = NDArray[np.float64]

_FORMS: tuple[PartForm, ...] = (*FORMS, "held")
_SAME = 1e-6  # of a new step: two clocks' rounding


@dataclass(frozen=True)
class Resampling:
    """How to bring episodes to another rate.

    Args:
        hz: new rows a second.
        roles: of the keys.
        action_kind: what actions are; None if there are none to resample.
        declared: by key, the parts of its last axis that are rotations, angles or switches (held), and their form.

    Raises:
        ConfigError: the rate is none, or a rotation of an action that is a change, which sums do not compose.
    """

    hz: float
    roles: Mapping[str, Role]
    action_kind: ActionKind | None = None
    declared: Mapping[str, list[tuple[Source, PartForm]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.hz < float("inf"):
            raise ConfigError(f"--resample must be above 0 Hz, but got {self.hz:g}")
        actions = [key for key, role in self.roles.items() if role == "action"]
        if actions and self.action_kind not in get_args(ActionKind):
            raise ConfigError(
                f"--resample needs to know what {actions[0]} is: --action-kind absolute (targets), delta (changes a "
                f"step) or rate (velocities, torques); they are resampled differently"
            )
        turning = [key for key in actions if any(form != "held" for _, form in self.declared.get(key, ()))]
        if turning and self.action_kind != "absolute":
            raise ConfigError(
                f"--declare {turning[0]}: rotations of {self.action_kind} actions do not add up; make them absolute "
                f"first"
            )

    def __call__(self, episode: Mapping[str, NDArray[Any]], edges: Floats) -> dict[str, NDArray[Any]]:
        """Returns an episode at the new rate.

        Args:
            episode: {key: (T, *shape)}.
            edges: (T + 1,) seconds at which its steps begin, and at which the last one ends.
        """
        grid = Grid.of(edges, self.hz)
        kept = {key: values for key, values in episode.items() if not key.startswith(NEXT)}
        return {key: self._column(key, values, grid).astype(values.dtype) for key, values in kept.items()}

    def _column(self, key: str, values: NDArray[Any], grid: "Grid") -> NDArray[Any]:
        role = self.roles[key]
        if role == "flag":
            return grid.any(values, hold=key not in ("terminated", "truncated"))
        if role == "reward":
            return grid.sums(values)
        if role == "time" and values.dtype.kind == "f":
            stamps: Floats = np.interp(grid.new[:-1], grid.old[:-1], values.reshape(-1))
            return stamps.reshape(-1, *values.shape[1:])
        if values.dtype.kind != "f" or role not in ("state", "action"):
            return np.asarray(values[grid.nearest()])
        return self._moving(key, values, grid)

    def _moving(self, key: str, values: NDArray[Any], grid: "Grid") -> NDArray[Any]:
        """Returns what states and actions become."""
        lower, weight = grid.between(arriving=self.roles[key] == "action")
        share = weight.reshape(-1, *(1,) * (values.ndim - 1))
        before = values[lower].astype(np.float64)
        after = values[np.minimum(lower + 1, len(values) - 1)].astype(np.float64)
        nearest = np.where(share > 0.5, after, before)
        if self.roles[key] == "action" and self.action_kind != "absolute":
            total = grid.integrated(values, weighted=self.action_kind == "rate")
            out = total / (grid.durations(values.ndim) if self.action_kind == "rate" else 1)
        else:
            out = before * (1 - share) + after * share
            if len(values) > 2:  # what has two values is a switch, such as a gripper's command: nothing lies between
                switch = ((values == values.min(axis=0)) | (values == values.max(axis=0))).all(axis=0)
                out = np.where(switch, nearest, out)
        for part, form in self.declared.get(key, ()):
            chosen = slice(part.start, part.stop)
            if form == "held":
                out[..., chosen] = nearest[..., chosen]
            else:
                out[..., chosen] = turned(before[..., chosen], after[..., chosen], share, form)
        return np.asarray(out)


@dataclass(frozen=True)
class Grid:
    """Old and new steps of one episode.

    Args:
        old: (T + 1,) edges of the old steps, seconds.
        new: (K + 1,) edges of the new steps.
    """

    old: Floats
    new: Floats

    @classmethod
    def of(cls, edges: Floats, hz: float) -> "Grid":
        """Returns new steps of 1 / hz seconds, the first of them where the first old one begins."""
        edges = edges - edges[0]
        count = int(np.floor(edges[-2] * hz + _SAME)) + 1
        new = np.arange(count + 1) / hz
        new[-1] = max(new[-1], edges[-1])
        return cls(edges, new)

    def between(self, *, arriving: bool) -> tuple[NDArray[np.int64], Floats]:
        """Returns the old row before each new one (K,), and the share in [0, 1] of the row after it.

        Args:
            arriving: rows are what holds at the end of their step, not at its beginning.
        """
        old, new = (self.old[1:], self.new[1:]) if arriving else (self.old[:-1], self.new[:-1])
        lower = np.clip(np.searchsorted(old, new + _SAME * self._step, side="right") - 1, 0, len(old) - 1)
        upper = np.minimum(lower + 1, len(old) - 1)
        width = old[upper] - old[lower]
        share = np.divide(new - old[lower], width, out=np.zeros(len(new)), where=width > 0)
        share = np.where(np.abs(new - old[lower]) <= _SAME * self._step, 0.0, share)
        return lower.astype(np.int64), np.clip(share, 0.0, 1.0)

    def nearest(self) -> NDArray[np.int64]:
        """Returns the old row that is nearest to each new one, (K,); of two, the earlier."""
        lower, share = self.between(arriving=False)
        return np.minimum(lower + (share > 0.5 + _SAME), len(self.old) - 2)

    def owner(self) -> NDArray[np.int64]:
        """Returns the new step in which each old one begins, (T,)."""
        inside = np.searchsorted(self.new, self.old[:-1] + _SAME * self._step, side="right") - 1
        return np.clip(inside, 0, len(self.new) - 2)

    def any(self, values: NDArray[Any], *, hold: bool) -> NDArray[Any]:
        """Returns (K, *shape): whether any old row that begins in a step says so.

        Args:
            values: (T, *shape) of zeros and ones.
            hold: the nearest row counts, too, so that nothing goes out between two old rows.
        """
        out = values[self.nearest()] != 0 if hold else np.zeros((len(self.new) - 1, *values.shape[1:]), bool)
        np.logical_or.at(out, self.owner(), values != 0)
        return out

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns (K, *shape): the sum of the old rows that begin in each step."""
        out = np.zeros((len(self.new) - 1, *values.shape[1:]))
        np.add.at(out, self.owner(), values)
        return out

    def integrated(self, values: NDArray[Any], *, weighted: bool) -> Floats:
        """Returns (K, *shape): what comes of old rows, spread over their steps, within each new one.

        Args:
            values: (T, *shape).
            weighted: rows are per second, so that they count by the length of their steps.
        """
        rows = values.reshape(len(values), -1).astype(np.float64)
        rows = rows * np.diff(self.old)[:, None] if weighted else rows
        reached = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])  # (T + 1, D) at the old edges
        at = np.stack([np.interp(self.new, self.old, column) for column in reached.T], axis=1)  # (K + 1, D)
        return np.diff(at, axis=0).reshape(-1, *values.shape[1:])

    def durations(self, axes: int) -> Floats:
        """Returns (K, 1, ...) of so many axes: seconds of each new step in which the old ones last."""
        lasting: Floats = np.diff(np.minimum(self.new, self.old[-1]))
        return lasting.reshape(-1, *(1,) * (axes - 1))

    @property
    def _step(self) -> float:
        return float(self.new[1] - self.new[0])


def parsed_declarations(words: list[str]) -> dict[str, list[tuple[Source, PartForm]]]:
    """Returns what `pose[3:7]=quaternion` and others declare, by key.

    Raises:
        ConfigError: a word is none of these forms, or the part does not have the form's size.
    """
    found: dict[str, list[tuple[Source, PartForm]]] = {}
    for word in words:
        place, _, name = word.partition("=")
        form = next((each for each in _FORMS if each == name), None)
        if form is None:
            known = ", ".join(_FORMS)
            raise ConfigError(f"--declare must look like pose[3:7]=quaternion (or {known}), but got '{word}'")
        part = Source.parse(place)
        if form == "held" or part.start is None or part.stop is None:
            found.setdefault(part.key, []).append((part, form))
            continue
        if part.stop - part.start != FORMS[form]:
            raise ConfigError(
                f"--declare {word}: {form} has {FORMS[form]} numbers, but {place} selects {part.stop - part.start}"
            )
        found.setdefault(part.key, []).append((part, form))
    return found
