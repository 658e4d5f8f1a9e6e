"""A data set's episodes as a flat table of transitions.

The next observation is what the data set stores as `next_<key>`, or the row after in the same episode. A step whose
outcome nobody saw, at the end of a truncated episode, is left out. Where an episode terminated and its last
observation is not stored, s' repeats s: nothing is learned from it (nothing follows a terminal), but a table has no
holes. Such tables say so (`ends_told`), and what compares next observations leaves these rows out.

Letters: N steps, M episodes; O, A numbers of an observation and of an action.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.augment.transitions import Columns, Rows, Transitions
from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import Source, read_obs
from diffusion_policy.data.transitions import Ends, Outcomes
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

_NO_FIELDS = {"action", "reward", "terminated", "truncated", "success"}


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
