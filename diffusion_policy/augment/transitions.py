"""Transitions as one flat table (s, a, r, s', terminal), which knows what its columns are.

Windows of demonstrations are such rows too: To observations and Tp actions, and no outcome. A transition is a window of
one observation and one action, with what came of it.

Letters: N rows, D columns; O numbers of an observation, A of an action; To, Tp observations and actions of a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import DataError
from diffusion_policy.settings import plain

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Args:
        obs: {key: shape} of the observation's fields, flattened in this order.
        action: shape of an action.
        rounded: columns of whole numbers.
        one_hot: ranges (start, stop) of columns of which one is 1 and the others 0.
        ends_told: whether s' is known where an episode terminated; False only in models that earlier versions fitted.
        obs_horizon: To, the last of them is now.
        pred_horizon: Tp, from the first observation on.
        outcome: whether the reward, s' and the terminal follow; windows have none.
    """

    obs: Mapping[str, tuple[int, ...]]
    action: tuple[int, ...]
    rounded: tuple[int, ...] = ()
    one_hot: tuple[tuple[int, int], ...] = ()
    ends_told: bool = True
    obs_horizon: int = 1
    pred_horizon: int = 1
    outcome: bool = True

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Columns":
        """Returns the columns that `told` tells of."""
        return cls(
            {str(key): tuple(shape) for key, shape in content["obs"].items()},
            tuple(content["action"]),
            tuple(content["rounded"]),
            tuple((int(start), int(stop)) for start, stop in content["one_hot"]),
            bool(content["ends_told"]),
            int(content.get("obs_horizon", 1)),
            int(content.get("pred_horizon", 1)),
            bool(content.get("outcome", True)),
        )

    def told(self) -> dict[str, Any]:
        """Returns plain values; of transitions those that every version knows, so that digests stay the same."""
        content: dict[str, Any] = plain(self)
        if self.outcome:
            for name in ("obs_horizon", "pred_horizon", "outcome"):
                del content[name]
        return content

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
        return self.reward_at + (self.obs_size + 2 if self.outcome else 0)

    @property
    def obs_at(self) -> slice:
        """Where s lies, or all observations of a window."""
        return slice(0, self.obs_horizon * self.obs_size)

    @property
    def action_at(self) -> slice:
        """Where a lies, or all actions of a window."""
        return slice(self.obs_horizon * self.obs_size, self.reward_at)

    @property
    def reward_at(self) -> int:
        """Where r lies, if there is an outcome; the end of the actions."""
        return self.obs_horizon * self.obs_size + self.pred_horizon * self.action_size

    @property
    def next_obs_at(self) -> slice:
        """Where s' lies, if there is an outcome."""
        return slice(self.reward_at + 1, self.reward_at + 1 + self.obs_size)

    @property
    def terminal_at(self) -> int:
        """Where the terminal lies, if there is an outcome: the last column."""
        return self.size - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of the D columns, for people; in windows with the step they are of, 0 being now: "pos[1]@-1"."""
        seen = [name for key, shape in self.obs.items() for name in _numbered(key, shape)]
        done = _numbered("action", self.action)
        if not self.outcome:
            first = 1 - self.obs_horizon
            steps = [f"{name}@{first + i}" for i in range(self.obs_horizon) for name in seen]
            return (*steps, *(f"{name}@{first + i}" for i in range(self.pred_horizon) for name in done))
        return (*seen, *done, "reward", *(NEXT + name for name in seen), "terminated")


@dataclass(frozen=True)
class Transitions:
    """A table of transitions, or of windows, which have no reward, next observation and terminal.

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
        """s, (N, To O)."""
        return self.rows[:, self.columns.obs_at]

    @property
    def action(self) -> Rows:
        """a, (N, Tp A)."""
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
        """Which rows are terminal, (N,); no window is."""
        if not self.columns.outcome:
            return np.zeros(len(self.rows), bool)
        found: NDArray[np.bool_] = self.rows[:, self.columns.terminal_at] > 0.5
        return found

    def subset(self, rows: NDArray[np.integer] | slice) -> "Transitions":
        """Returns some of the rows."""
        return Transitions(self.columns, self.rows[rows])

    def stored(self) -> dict[str, NDArray[Any]]:
        """Returns the columns as a replay buffer keeps them, {key: (N, *shape)}, with `next_<key>` beside each field.

        What is not terminated is truncated: each row is an episode of its own. Of windows it returns {key: (N, To,
        *shape)} and the action (N, Tp, *shape): no reader of demonstrations can take a window for an episode.
        """
        columns = self.columns
        if not columns.outcome:
            chunks = self.action.reshape(-1, columns.pred_horizon, *columns.action)
            steps = self.obs.reshape(-1, columns.obs_horizon, columns.obs_size)
            return {"action": chunks, **_fields(columns.obs, steps)}
        terminated = self.terminated
        following = _fields(columns.obs, self.next_obs)
        return {
            "action": self.action.reshape(-1, *columns.action),
            "reward": self.reward,
            "terminated": terminated,
            "truncated": ~terminated,
            **_fields(columns.obs, self.obs),
            **{NEXT + key: values for key, values in following.items()},
        }


def _fields(shapes: Mapping[str, tuple[int, ...]], values: Rows) -> dict[str, NDArray[Any]]:
    """Returns numbers (..., O) as {key: (..., *shape)}."""
    held, at = {}, 0
    for key, shape in shapes.items():
        stop = at + int(np.prod(shape))
        held[key] = values[..., at:stop].reshape(*values.shape[:-1], *shape)
        at = stop
    return held


def _numbered(key: str, shape: tuple[int, ...]) -> list[str]:
    size = int(np.prod(shape))
    return [key] if shape == () else [f"{key}[{i}]" for i in range(size)]
