"""Transitions as one flat table (s, a, r, s', terminal), which knows what its columns are.

Letters: N rows, D columns: O numbers of the observation, A of the action, the reward, O of the next observation, and
the terminal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import DataError

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Args:
        obs: {key: shape} of the observation's fields, flattened in this order.
        action: shape of the action.
        rounded: columns of whole numbers.
        one_hot: ranges (start, stop) of columns of which one is 1 and the others 0.
        ends_told: whether s' is known where an episode terminated; False only in models that earlier versions fitted.
    """

    obs: Mapping[str, tuple[int, ...]]
    action: tuple[int, ...]
    rounded: tuple[int, ...] = ()
    one_hot: tuple[tuple[int, int], ...] = ()
    ends_told: bool = True

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Columns":
        """Returns what `settings.plain` made of columns."""
        return cls(
            {str(key): tuple(shape) for key, shape in content["obs"].items()},
            tuple(content["action"]),
            tuple(content["rounded"]),
            tuple((int(start), int(stop)) for start, stop in content["one_hot"]),
            bool(content["ends_told"]),
        )

    @cached_property
    def obs_size(self) -> int:
        """O."""
        return sum(int(np.prod(shape)) for shape in self.obs.values())

    @cached_property
    def action_size(self) -> int:
        """A."""
        return int(np.prod(self.action))

    @property
    def size(self) -> int:
        """D."""
        return 2 * self.obs_size + self.action_size + 2

    @property
    def obs_at(self) -> slice:
        """Where s lies."""
        return slice(0, self.obs_size)

    @property
    def action_at(self) -> slice:
        """Where a lies."""
        return slice(self.obs_size, self.obs_size + self.action_size)

    @property
    def reward_at(self) -> int:
        """Where r lies."""
        return self.obs_size + self.action_size

    @property
    def next_obs_at(self) -> slice:
        """Where s' lies."""
        return slice(self.reward_at + 1, self.reward_at + 1 + self.obs_size)

    @property
    def terminal_at(self) -> int:
        """Where the terminal lies: the last column."""
        return self.size - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of the D columns, for people."""
        seen = [name for key, shape in self.obs.items() for name in _numbered(key, shape)]
        return (*seen, *_numbered("action", self.action), "reward", *(NEXT + name for name in seen), "terminated")


@dataclass(frozen=True)
class Transitions:
    """A table of transitions.

    Args:
        columns: what its columns are.
        rows: (N, D) float32.
    """

    columns: Columns
    rows: Rows

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != self.columns.size:
            raise DataError(f"expected rows of {self.columns.size} columns, but got an array of {self.rows.shape}")

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def obs(self) -> Rows:
        """s, (N, O)."""
        return self.rows[:, self.columns.obs_at]

    @property
    def action(self) -> Rows:
        """a, (N, A)."""
        return self.rows[:, self.columns.action_at]

    @property
    def reward(self) -> Rows:
        """r, (N,)."""
        return self.rows[:, self.columns.reward_at]

    @property
    def next_obs(self) -> Rows:
        """s', (N, O)."""
        return self.rows[:, self.columns.next_obs_at]

    @property
    def terminated(self) -> NDArray[np.bool_]:
        """Which rows are terminal, (N,)."""
        found: NDArray[np.bool_] = self.rows[:, self.columns.terminal_at] > 0.5
        return found

    def subset(self, rows: NDArray[np.integer] | slice) -> "Transitions":
        """Returns some of the rows."""
        return Transitions(self.columns, self.rows[rows])

    def stored(self) -> dict[str, NDArray[Any]]:
        """Returns the columns as a replay buffer keeps them, {key: (N, *shape)}, with `next_<key>` beside each field.

        What is not terminated is truncated: each row is an episode of its own.
        """
        terminated = self.terminated
        held: dict[str, NDArray[Any]] = {
            "action": self.action.reshape(-1, *self.columns.action),
            "reward": self.reward,
            "terminated": terminated,
            "truncated": ~terminated,
        }
        at = 0
        for key, shape in self.columns.obs.items():
            stop = at + int(np.prod(shape))
            held[key] = self.obs[:, at:stop].reshape(-1, *shape)
            held[NEXT + key] = self.next_obs[:, at:stop].reshape(-1, *shape)
            at = stop
        return held


def _numbered(key: str, shape: tuple[int, ...]) -> list[str]:
    size = int(np.prod(shape))
    return [key] if shape == () else [f"{key}[{i}]" for i in range(size)]
