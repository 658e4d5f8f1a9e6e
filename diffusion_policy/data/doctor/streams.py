"""What the keys of a data set are, and how its numbers usually move: what checks compare with.

Letters: N steps of all episodes, M episodes, T steps of one, D numbers of a step.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions_check import NEXT

Episode = Mapping[str, NDArray[Any]]
Role = Literal["action", "state", "image", "time", "flag", "reward", "other"]

TIME_KEYS = ("time_s", "timestamp", "timestamps", "time")
"""When each row was: our recorder's, LeRobot's, and what others call it. The first that is there counts."""
LOW_DIM_SIZE = 1024
"""Numbers in a step; above, single dimensions mean nothing (point clouds, a picture's black corner)."""

_FLAGS = ("terminated", "truncated", "success", "done", "labelled", "planned", "starved", "stopped")
_OTHERS = ("plan", "plan_start_s", "observed_s", "frame_index", "episode_index", "index", "task_index", "discount")
_MIN_IMAGE = 8  # pixels; below, an array of three axes is something else
_CHANNELS = (1, 3, 4)
_SAMPLE = 50_000  # rows from which the usual range is taken: percentiles within 0.1 %
_SAMPLE_NUMBERS = 4_000_000  # of a key at most: 32 MB
_TOGETHER = 4096  # single transitions
_NOISE = -0.3  # correlation of successive changes; of white noise it is -0.5, of any smooth course above 0
_EVEN = 1.1  # between the largest and the smallest step of a clock: rounding of float32
_USUAL = 90  # percentile of changes that counts as an ordinary step


def role_of(key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Role:
    """Returns what a key is, by its name and form.

    Args:
        key: its name.
        shape: of one step.
        dtype: as stored.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if key in TIME_KEYS and size == 1:
        return "time"
    if dtype.kind == "b" or key in _FLAGS:
        return "flag"
    if key == "reward":
        return "reward"
    if key in _OTHERS or key.startswith(NEXT):
        return "other"
    if is_image(shape):
        return "image"
    if size > LOW_DIM_SIZE:
        return "other"
    return "action" if key.split(".")[0].split("_")[0] in ("action", "actions") else "state"


def is_image(shape: tuple[int, ...]) -> bool:
    """Returns whether a step looks like a picture, (H, W, C) or (C, H, W)."""
    if len(shape) != 3:
        return False
    return (shape[2] in _CHANNELS and min(shape[:2]) >= _MIN_IMAGE) or channels_first(shape)


def channels_first(shape: tuple[int, ...]) -> bool:
    """Returns whether a step looks like a picture (C, H, W)."""
    return len(shape) == 3 and shape[2] not in _CHANNELS and shape[0] in _CHANNELS and min(shape[1:]) >= _MIN_IMAGE


def roles(buffer: ReplayBuffer, keys: Sequence[str]) -> dict[str, Role]:
    """Returns what each of some keys is."""
    return {key: role_of(key, buffer.shape(key), buffer.dtype(key)) for key in keys}


def rows_of(values: NDArray[Any]) -> NDArray[np.float64]:
    """Returns steps (T, *shape) as numbers (T, D)."""
    return values.reshape(len(values), -1).astype(np.float64, copy=False)


@dataclass(frozen=True)
class Usual:
    """How the numbers of one key usually lie and move.

    Args:
        low: (D,) 1st percentile.
        middle: (D,) median.
        high: (D,) 99th percentile.
        step: (D,) an ordinary change in one step: the 90th percentile of those that are no 0; 0 where none is.
        noisy: (D,) whether changes are noise rather than motion.
        unchanged: (D,) share of steps that change nothing, in the median episode.
        least: (D,) smallest of all.
        most: (D,) largest of all.
        clocks: (D,) whether it grows by the same at every step, as time does, whether anything moves or not.
    """

    low: NDArray[np.float64]
    middle: NDArray[np.float64]
    high: NDArray[np.float64]
    step: NDArray[np.float64]
    noisy: NDArray[np.bool_]
    unchanged: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    clocks: NDArray[np.bool_]

    @property
    def span(self) -> NDArray[np.float64]:
        """(D,) between the percentiles."""
        return np.asarray(self.high - self.low)

    @property
    def moving(self) -> NDArray[np.bool_]:
        """(D,) whether a change tells of motion."""
        return np.asarray((self.step > 0) & ~self.noisy)


def usual(buffer: ReplayBuffer, keys: Sequence[str]) -> dict[str, Usual]:
    """Returns how numeric keys usually lie and move; reads them once, episode after episode.

    Args:
        buffer: at least one episode.
        keys: of role action or state.
    """
    found = {}
    for key in keys:
        rows = min(_SAMPLE, max(1, _SAMPLE_NUMBERS // max(1, int(np.prod(buffer.shape(key), dtype=np.int64)))))
        found[key] = _Sample(max(1, buffer.num_steps // rows))
    if buffer.num_episodes == buffer.num_steps:  # single transitions come in millions
        for key in keys:
            for start in range(0, buffer.num_steps, _TOGETHER):
                found[key].add(rows_of(buffer.read(key, start, min(start + _TOGETHER, buffer.num_steps))), course=False)
        return {key: each.usual() for key, each in found.items()}
    for episode in buffer.episodes(list(keys)) if keys else ():
        for key, values in episode.items():
            found[key].add(rows_of(values))
    return {key: each.usual() for key, each in found.items()}


class _Sample:
    """Every so manieth row and change of one key.

    Args:
        every: of which one is kept.
    """

    def __init__(self, every: int) -> None:
        self._every, self._seen = every, 0
        self._rows: list[NDArray[np.float64]] = []
        self._changes: list[NDArray[np.float64]] = []
        self._unchanged: list[NDArray[np.float64]] = []
        self._product: Any = 0.0
        self._square: Any = 0.0
        self._least: Any = np.inf
        self._most: Any = -np.inf
        self._slowest: Any = np.inf  # changes, with their signs
        self._fastest: Any = -np.inf

    def add(self, rows: NDArray[np.float64], *, course: bool = True) -> None:
        """Takes in one episode (T, D), or, without a course in time, any rows."""
        first = -self._seen % self._every  # so that short episodes are sampled as densely as long ones
        self._seen += len(rows)
        self._least, self._most = np.fmin(self._least, np.fmin.reduce(rows)), np.fmax(self._most, np.fmax.reduce(rows))
        self._rows.append(rows[first :: self._every].copy())
        with np.errstate(invalid="ignore"):  # infinite numbers are another check's
            changes = np.diff(rows if course else rows[:1], axis=0)
        self._changes.append(np.abs(changes[first :: self._every]))
        if len(changes):
            self._unchanged.append((changes == 0).mean(axis=0, dtype=np.float32))
            self._slowest = np.minimum(self._slowest, changes.min(axis=0))
            self._fastest = np.maximum(self._fastest, changes.max(axis=0))
        changes = np.where(np.isfinite(changes), changes, 0.0)
        self._product = self._product + (changes[1:] * changes[:-1]).sum(axis=0)
        self._square = self._square + (changes**2).sum(axis=0)

    def usual(self) -> Usual:
        """Returns what was seen, after all episodes."""
        rows, changes = np.concatenate(self._rows), np.concatenate(self._changes)
        rows = np.where(np.isfinite(rows), rows, np.nan)
        changes = np.where(np.isfinite(changes) & (changes > 0), changes, np.nan)
        with warnings.catch_warnings():  # columns without a finite number have no percentiles
            warnings.simplefilter("ignore", RuntimeWarning)
            low, middle, high = np.nanpercentile(rows, (1, 50, 99), axis=0)
            step = np.nanpercentile(changes, _USUAL, axis=0) if len(changes) else np.zeros(rows.shape[1])
        square = np.asarray(self._square)
        correlation = np.divide(self._product, square, out=np.zeros_like(square), where=square > 0)
        still = np.median(self._unchanged, axis=0) if self._unchanged else np.ones(rows.shape[1])
        noisy = correlation < _NOISE
        even = np.broadcast_to((self._slowest > 0) & (self._fastest <= _EVEN * self._slowest), low.shape)
        return Usual(low, middle, high, np.nan_to_num(step), noisy, still, self._least, self._most, even.copy())
