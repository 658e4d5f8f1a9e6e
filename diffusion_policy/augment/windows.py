"""Demonstrations as a flat table: a row is a window of To observations and Tp actions, the very one a policy trains on.

Letters: N steps, M episodes, W windows; O, A numbers of an observation and of an action; To, Tp horizons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.augment.declared import check_declared, declared_columns
from diffusion_policy.augment.reading import numeric_fields
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.config import Horizons, ObsField
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import read_obs
from diffusion_policy.data.windows import WindowIndex
from diffusion_policy.errors import DataError


@dataclass(frozen=True)
class KnownWindows:
    """The windows of some episodes.

    Args:
        table: a row each, in the order of `WindowIndex`.
        episodes: those that have windows, sorted.
    """

    table: Transitions
    episodes: NDArray[np.int64]


def read_windows(
    buffer: ReplayBuffer,
    horizons: Horizons,
    *,
    fields: Sequence[str] | None = None,
    episodes: NDArray[np.integer] | None = None,
    drop_short: bool = False,
    rounded: Sequence[str] = (),
    one_hot: Sequence[str] = (),
) -> KnownWindows:
    """Returns the windows of demonstrations, steps beyond an episode repeated as in training.

    Args:
        buffer: it needs `action`.
        horizons: To, Ta, Tp of the policy that is to learn from them.
        fields: keys of the observation; None for all that are no action, reward, end or `next_<key>` of another.
        episodes: sorted, distinct; None for all.
        drop_short: leave out episodes shorter than Tp instead of refusing them.
        rounded: see `reading.read_known`.
        one_hot: likewise.

    Raises:
        DataError: actions are missing, a field is a picture or holds undeclared whole numbers, a number is not finite,
            or an episode is too short.
        ConfigError: a declared column does not exist, is declared twice, or holds something else.
    """
    spec = numeric_fields(buffer, fields, ("action",))
    columns = declared_columns(buffer, spec, rounded, one_hot, horizons)
    chosen = np.arange(buffer.num_episodes) if episodes is None else np.asarray(episodes, np.int64)
    ends = np.cumsum(lengths(buffer.episode_ends)[chosen])
    try:
        index = WindowIndex(ends, horizons, episode_ids=chosen, drop_short=drop_short)
    except DataError as error:
        raise DataError(f"{buffer.location}: {error}") from None
    seen = [read_obs(key, field, buffer, chosen) for key, field in spec.items()]
    obs = np.concatenate([each.reshape(len(each), -1) for each in seen], axis=1)  # (N, O)
    action = read_obs("action", ObsField("low_dim", columns.action), buffer, chosen).reshape(len(obs), -1)  # (N, A)
    steps = index.steps(np.arange(len(index)))  # (W, Tp)
    rows = [obs[steps[:, : horizons.obs_horizon]].reshape(len(steps), -1), action[steps].reshape(len(steps), -1)]
    table = Transitions(columns, np.concatenate(rows, axis=1, dtype=np.float32))
    check_declared(table, buffer.location)
    return KnownWindows(table, np.setdiff1d(chosen, index.dropped))


def read_stored_windows(buffer: ReplayBuffer, columns: Columns, count: int) -> Transitions:
    """Returns the first windows that a stream has written.

    Args:
        buffer: what `stream` made.
        columns: of the model that drew them.
        count: at most so many.
    """
    rows = min(count, buffer.num_steps)
    seen = [buffer.read(key, 0, rows).reshape(rows, columns.obs_horizon, -1) for key in columns.obs]
    steps = np.concatenate(seen, axis=2).reshape(rows, -1)  # (W, To O)
    done = buffer.read("action", 0, rows).reshape(rows, -1)
    return Transitions(columns, np.concatenate([steps, done], axis=1, dtype=np.float32))
