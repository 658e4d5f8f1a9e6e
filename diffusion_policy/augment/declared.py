"""Columns that are declared: whole numbers, and ranges of which one is 1. What is declared must be so in the data.

Letters: N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.config import Horizons, ObsSpec
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import Source
from diffusion_policy.errors import ConfigError, DataError

Range = tuple[int, int]
Places = Mapping[str, tuple[int, tuple[int, ...]]]
"""{key: (first column, shape)} of the observation and the action."""


def declared_columns(
    buffer: ReplayBuffer,
    spec: ObsSpec,
    rounded: Sequence[str],
    one_hot: Sequence[str],
    horizons: Horizons | None = None,
) -> Columns:
    """Returns the columns of a table, with those that are declared.

    Args:
        buffer: the data set.
        spec: fields of the observation.
        rounded: "gripper", "state[3]", "state[0:2]".
        one_hot: "goal", "state[4:8]".
        horizons: of windows; None for transitions.

    Raises:
        ConfigError: a declared column does not exist, or is declared twice.
        DataError: whole numbers are not declared.
    """
    columns = Columns({key: field.shape for key, field in spec.items()}, buffer.shape("action"))
    if horizons is not None:
        To, Tp = horizons.obs_horizon, horizons.pred_horizon
        columns = replace(columns, obs_horizon=To, pred_horizon=Tp, outcome=False)
    columns = declared(columns, rounded, one_hot)
    told = {*columns.rounded, *chain(*(range(*each) for each in columns.one_hot))}
    for key, (start, shape) in _places(columns).items():
        first = _everywhere([(start, start + int(np.prod(shape)))], columns)[0]
        if buffer.dtype(key).kind in "iub" and not set(range(*first)) <= told:
            raise DataError(
                f"{buffer.location}: '{key}' holds whole numbers ({buffer.dtype(key)}); say how samples become such: "
                f"rounded=[{key}], or one_hot=[{key}]; or leave it out of fields="
            )
    return columns


def declared(columns: Columns, rounded: Sequence[str], one_hot: Sequence[str]) -> Columns:
    """Returns columns of which some are declared, wherever they stand in a row.

    Args:
        columns: of which none is yet.
        rounded: "gripper", "state[3]", "state[0:2]".
        one_hot: "goal", "state[4:8]".

    Raises:
        ConfigError: a declared column does not exist, or is declared twice.
    """
    places = _places(columns)
    whole = [_range(name, places, "rounded") for name in rounded]
    hot = [_range(name, places, "one_hot") for name in one_hot]
    _refuse_twice([*whole, *hot], columns)
    numbers = chain(*(range(*each) for each in _everywhere(whole, columns)))
    return replace(columns, rounded=tuple(numbers), one_hot=tuple(_everywhere(hot, columns)))


def _places(columns: Columns) -> Places:
    shapes = {**columns.obs, "action": columns.action}
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())]).tolist()
    return {key: (start, shape) for (key, shape), start in zip(shapes.items(), starts[:-1], strict=True)}


def check_declared(table: Transitions, where: str) -> None:
    """Raises ConfigError where a declared column of a table (N rows) holds something else."""
    columns, names = table.columns, table.columns.names
    for column in columns.rounded:
        broken = np.flatnonzero(table.rows[:, column] != np.round(table.rows[:, column]))
        if broken.size:
            raise ConfigError(
                f"rounded: {names[column]} of {where} is declared a whole number, but {broken.size} of {len(table)} "
                f"rows hold others, e.g. {table.rows[broken[0], column]:g}; leave it out of rounded"
            )
    for start, stop in columns.one_hot:
        values = table.rows[:, start:stop]
        broken = np.flatnonzero(~(np.isin(values, (0, 1)).all(axis=1) & (values.sum(axis=1) == 1)))
        if broken.size:
            example = ", ".join(f"{value:g}" for value in values[broken[0]][:8])
            raise ConfigError(
                f"one_hot: one of {names[start]} to {names[stop - 1]} of {where} is declared 1 and the others 0, but "
                f"in {broken.size} of {len(table)} rows that is not so, e.g. {example}; leave it out of one_hot"
            )


def _refuse_twice(ranges: Sequence[Range], columns: Columns) -> None:
    seen: set[int] = set()
    for start, stop in ranges:
        again = sorted(seen & set(range(start, stop)))
        if again:
            name = columns.names[again[0]]
            raise ConfigError(f"rounded, one_hot: {name} is declared twice; declare each column once")
        seen |= set(range(start, stop))


def _everywhere(ranges: Sequence[Range], columns: Columns) -> list[Range]:
    """Returns ranges of (s, a) at all places where they lie in a row: s and s', or the steps of a window."""
    size = columns.obs_size
    seen = [step * size for step in range(columns.obs_horizon)]
    seen += [columns.next_obs_at.start] if columns.outcome else []
    done = [columns.action_at.start - size + step * columns.action_size for step in range(columns.pred_horizon)]
    return [(start + by, stop + by) for start, stop in ranges for by in (seen if start < size else done)]


def _range(name: str, places: Places, what: str) -> Range:
    """Returns the columns (start, stop) that "key", "key[3]" or "key[0:2]" names in s and a."""
    source = Source.parse(name)
    if source.key not in places:
        raise ConfigError(f"{what}: no field '{source.key}', known: {', '.join(places)}")
    at, shape = places[source.key]
    size = int(np.prod(shape))
    start, stop = source.start or 0, size if source.stop is None else source.stop
    if not start < stop <= size or (source.start is not None and len(shape) > 1) or source.scale != 1:
        raise ConfigError(f"{what}: '{name}' is no part of '{source.key}', which has shape {shape}")
    if what == "one_hot" and stop - start < 2:
        raise ConfigError(f"one_hot: '{name}' is a single number, which would always be 1; expected a range of several")
    return at + start, at + stop
