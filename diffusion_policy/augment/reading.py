"""A data set's episodes as a flat table of transitions.

The next observation is the row after in the same episode, and at an episode's end what the data set stores as
`next_<key>`. A step whose outcome nobody saw is left out, be its episode truncated or terminated: a made-up s' would be
learned like the others, and beside real ones it would make terminals look like steps on the spot.

Letters: N steps, M episodes; O, A numbers of an observation and of an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.augment.declared import check_declared, declared_columns
from diffusion_policy.augment.transitions import Rows, Transitions
from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.outcomes import Ends, Outcomes
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import read_obs
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

_NO_FIELDS = {"action", "reward", "terminated", "truncated", "success"}


@dataclass(frozen=True)
class KnownTransitions:
    """The transitions of some episodes whose outcome is known, and what they are of.

    Args:
        table: the rows.
        terminated: (N,) bool, of all steps of the episodes, left out or not.
        left_out: steps whose outcome nobody saw.
        terminals_left_out: those of them where an episode terminated.
    """

    table: Transitions
    terminated: NDArray[np.bool_]
    left_out: int
    terminals_left_out: int


def read_transitions(buffer: ReplayBuffer, **choice: Any) -> Transitions:
    """Returns the table of `read_known`, which says what may be chosen."""
    return read_known(buffer, **choice).table


def read_known(
    buffer: ReplayBuffer,
    *,
    fields: Sequence[str] | None = None,
    episodes: NDArray[np.integer] | None = None,
    ends: Ends = "refuse",
    rounded: Sequence[str] = (),
    one_hot: Sequence[str] = (),
) -> KnownTransitions:
    """Returns the transitions of a data set whose outcome is known.

    Args:
        buffer: it needs `action`, `reward` and `terminated`.
        fields: keys of the observation; None for all keys that are no action, reward, end or `next_<key>` of another.
        episodes: sorted, distinct; None for all.
        ends: where truncation may be stored as termination; see `data.outcomes.Ends`.
        rounded: whole numbers: "gripper", "state[3]", "state[0:2]", of the observation or the action.
        one_hot: ranges of which one number is 1 and the others 0: "goal", "state[4:8]".

    Raises:
        DataError: rewards, ends or actions are missing or not finite, a field is a picture or holds undeclared whole
            numbers, or no transition has a known outcome.
        ConfigError: a declared column does not exist, is declared twice, or holds something else.
    """
    spec = numeric_fields(buffer, fields, ("action", "reward", "terminated"))
    columns = declared_columns(buffer, spec, rounded, one_hot)
    chosen = np.arange(buffer.num_episodes) if episodes is None else np.asarray(episodes, np.int64)
    outcomes = Outcomes.read(buffer, chosen, spec, ends)
    obs = np.concatenate([_flat(read_obs(key, field, buffer, chosen)) for key, field in spec.items()], axis=1)  # (N, O)
    action = _flat(read_obs("action", ObsField("low_dim", columns.action), buffer, chosen))
    stops = np.cumsum(lengths(buffer.episode_ends)[chosen])
    following, known = np.roll(obs, -1, axis=0), np.ones(len(obs), bool)
    if outcomes.final_obs:
        following[stops - 1] = np.concatenate([_flat(outcomes.final_obs[key]) for key in spec], axis=1)
    else:
        known[stops - 1] = False
    if not known.any():
        raise DataError(
            f"{buffer.location}: none of {len(obs)} steps has a known outcome, every episode ends with its first; "
            f"store next_<key> (dp-collect next_obs=true)"
        )
    terminal = outcomes.terminated[:, None].astype(np.float32)
    rows = np.concatenate([obs, action, outcomes.reward[:, None], following, terminal], axis=1, dtype=np.float32)
    table = Transitions(columns, rows[known])
    check_declared(table, buffer.location)
    lost = int(outcomes.terminated[~known].sum())
    return KnownTransitions(table, outcomes.terminated, int((~known).sum()), lost)


def numeric_fields(buffer: ReplayBuffer, fields: Sequence[str] | None, needed: Sequence[str]) -> ObsSpec:
    """Returns the fields of the observation; refuses what a flat table cannot hold, by name.

    Args:
        buffer: the data set.
        fields: keys that are wanted; None for all.
        needed: keys that must be there besides.

    Raises:
        DataError: a needed key is missing, no field is left, or one is a picture.
        ConfigError: a wanted key is no observation, or named twice.
    """
    for key in needed:
        if key not in buffer:
            remedy = "record it (dp-collect does), or, of demonstrations, augment windows: augment=demonstrations"
            if key == "action":
                remedy = "store actions under this one key; several keys, or others, cannot be augmented yet"
            raise DataError(
                f"{buffer.location}: augmenting needs data '{key}', but the data set has: {', '.join(buffer.keys())}; "
                f"{remedy}"
            )
    found = [key for key in buffer.keys() if key not in _NO_FIELDS and not _follows(key, buffer)]  # noqa: SIM118
    wanted = found if fields is None else list(fields)
    if not wanted:
        raise DataError(f"{buffer.location}: no field of an observation, only: {', '.join(buffer.keys())}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"fields: each may be named once, but got {', '.join(wanted)}")
    for key in wanted:
        if key in _NO_FIELDS or (key in buffer and _follows(key, buffer)):
            raise ConfigError(f"fields: '{key}' is no observation; choose of: {', '.join(found)}")
        if len(buffer.shape(key)) >= 3:
            others = [each for each in wanted if each != key]
            raise DataError(
                f"{buffer.location}: '{key}' holds pictures (or other grids) of {buffer.shape(key)}, and a "
                f"table of transitions holds numbers; choose other fields: fields=[{', '.join(others)}]"
            )
    return {key: ObsField("low_dim", buffer.shape(key)) for key in wanted}


def _follows(key: str, buffer: ReplayBuffer) -> bool:
    """Whether a key holds what followed another one, rather than being called so."""
    return key.startswith(NEXT) and key.removeprefix(NEXT) in buffer


def _flat(values: NDArray[Any]) -> Rows:
    return values.reshape(len(values), -1)
