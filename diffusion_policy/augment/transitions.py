"""Transitions as one flat table (s, a, r, s', terminal), which knows what its columns are.

The next observation is what the data set stores as `next_<key>`, or the row after in the same episode. A step whose
outcome nobody saw, at the end of a truncated episode, is left out. Where an episode terminated and its last
observation is not stored, s' repeats s: nothing is learned from it (nothing follows a terminal), but a table has no
holes. Such tables say so (`ends_told`), and what compares next observations leaves these rows out.

Letters: N rows, D columns: O numbers of the observation, A of the action, the reward, O of the next observation, and
the terminal. M episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import Source, read_obs
from diffusion_policy.data.transitions import Ends, Outcomes
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

Rows = NDArray[np.float32]
_NO_FIELDS = {"action", "reward", "terminated", "truncated", "success"}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Args:
        obs: {key: shape} of the observation's fields, flattened in this order.
        action: shape of the action.
        rounded: columns of whole numbers.
        one_hot: ranges (start, stop) of columns of which one is 1 and the others 0.
        ends_told: whether s' is known where an episode terminated.
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


def read_transitions(
    buffer: ReplayBuffer,
    *,
    fields: Sequence[str] | None = None,
    episodes: NDArray[np.integer] | None = None,
    ends: Ends = "refuse",
    rounded: Sequence[str] = (),
    one_hot: Sequence[str] = (),
) -> Transitions:
    """Returns the transitions of a data set whose outcome is known.

    Args:
        buffer: it needs `action`, `reward` and `terminated`.
        fields: keys of the observation; None for all keys that are no action, reward, end or `next_<key>`.
        episodes: sorted, distinct; None for all.
        ends: where truncation may be stored as termination; see `data.transitions.Ends`.
        rounded: whole numbers: "gripper", "state[3]", "state[0:2]", of the observation or the action.
        one_hot: ranges of which one number is 1 and the others 0: "goal", "state[4:8]".

    Raises:
        DataError: rewards, ends or actions are missing or not finite, a field is a picture or holds undeclared whole
            numbers, or no transition has a known outcome.
        ConfigError: a declared column does not exist.
    """
    spec = _fields(buffer, fields)
    columns = _columns(buffer, spec, rounded, one_hot)
    chosen = np.arange(buffer.num_episodes) if episodes is None else np.asarray(episodes, np.int64)
    outcomes = Outcomes.read(buffer, chosen, spec, ends)
    obs = np.concatenate([_flat(read_obs(key, field, buffer, chosen)) for key, field in spec.items()], axis=1)  # (N, O)
    action = _flat(read_obs("action", ObsField("low_dim", columns.action), buffer, chosen))
    stops = np.cumsum(lengths(buffer.episode_ends)[chosen])
    told = bool(outcomes.final_obs)
    following = np.roll(obs, -1, axis=0)
    following[stops - 1] = (
        np.concatenate([_flat(outcomes.final_obs[key]) for key in spec], axis=1) if told else obs[stops - 1]
    )
    over = np.zeros(len(obs), bool)
    over[stops - 1] = True
    known = ~over | outcomes.terminated | told
    if not known.any():
        raise DataError(
            f"{buffer.location}: none of {len(obs)} steps has a known outcome, every episode is truncated at its "
            f"first; store next_<key>"
        )
    columns = Columns(columns.obs, columns.action, columns.rounded, columns.one_hot, told)
    terminal = outcomes.terminated[:, None].astype(np.float32)
    rows = np.concatenate([obs, action, outcomes.reward[:, None], following, terminal], axis=1, dtype=np.float32)
    return Transitions(columns, rows[known])


def _fields(buffer: ReplayBuffer, fields: Sequence[str] | None) -> ObsSpec:
    """Returns the fields of the observation; refuses what a flat table cannot hold, by name."""
    for key in ("action", "reward", "terminated"):
        if key not in buffer:
            raise DataError(
                f"{buffer.location}: augmenting needs data '{key}', but the data set has: {', '.join(buffer.keys())}; "
                f"record it (dp-collect does)"
            )
    found = [key for key in buffer.keys() if key not in _NO_FIELDS and not key.startswith(NEXT)]  # noqa: SIM118
    wanted = found if fields is None else list(fields)
    if not wanted:
        raise DataError(f"{buffer.location}: no field of an observation, only: {', '.join(buffer.keys())}")
    for key in wanted:
        shape, dtype = buffer.shape(key), buffer.dtype(key)
        if len(shape) == 3 and dtype == np.uint8:
            others = [each for each in wanted if each != key]
            raise DataError(
                f"{buffer.location}: '{key}' holds pictures of {shape}, and a table of transitions holds numbers; "
                f"choose other fields: fields=[{', '.join(others)}]"
            )
    return {key: ObsField("low_dim", buffer.shape(key)) for key in wanted}


def _columns(buffer: ReplayBuffer, spec: ObsSpec, rounded: Sequence[str], one_hot: Sequence[str]) -> Columns:
    """Returns the columns, with those that are declared; integers must be."""
    action = buffer.shape("action")
    places, at = {}, 0
    for key, shape in (*((key, field.shape) for key, field in spec.items()), ("action", action)):
        places[key] = (at, shape)
        at += int(np.prod(shape))
    obs_size = at - int(np.prod(action))

    def ranges(names: Sequence[str], what: str) -> list[tuple[int, int]]:
        found = []
        for name in names:
            start, stop = _range(name, places, what)
            found.append((start, stop))
            if start < obs_size:  # in the next observation, too, behind s, a and r
                found.append((start + at + 1, stop + at + 1))
        return found

    whole, hot = ranges(rounded, "rounded"), ranges(one_hot, "one_hot")
    declared = {column for start, stop in [*whole, *hot] for column in range(start, stop)}
    for key in places:
        start, shape = places[key]
        mine = set(range(start, start + int(np.prod(shape))))
        if buffer.dtype(key).kind in "iub" and not mine <= declared:
            raise DataError(
                f"{buffer.location}: '{key}' holds whole numbers ({buffer.dtype(key)}); say how samples become such: "
                f"rounded=[{key}], or one_hot=[{key}]; or leave it out of fields="
            )
    columns = tuple(column for start, stop in whole for column in range(start, stop))
    return Columns({key: field.shape for key, field in spec.items()}, action, columns, tuple(hot))


def _range(name: str, places: Mapping[str, tuple[int, tuple[int, ...]]], what: str) -> tuple[int, int]:
    """Returns the columns (start, stop) that "key", "key[3]" or "key[0:2]" names in s and a."""
    source = Source.parse(name)
    if source.key not in places:
        raise ConfigError(f"{what}: no field '{source.key}', known: {', '.join(places)}")
    at, shape = places[source.key]
    size = int(np.prod(shape))
    start, stop = source.start or 0, size if source.stop is None else source.stop
    if not start < stop <= size or (source.start is not None and len(shape) > 1):
        raise ConfigError(f"{what}: '{name}' is no part of '{source.key}', which has shape {shape}")
    return at + start, at + stop


def _flat(values: NDArray[Any]) -> Rows:
    return values.reshape(len(values), -1)


def _numbered(key: str, shape: tuple[int, ...]) -> list[str]:
    size = int(np.prod(shape))
    return [key] if shape == () else [f"{key}[{i}]" for i in range(size)]
