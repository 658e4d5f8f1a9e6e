"""What every format gives: episodes with our names, one after another, and what the source says of itself.

Our names are `observation` (or those of its fields), `action`, `reward`, `terminated`, `truncated`, and `next_<key>`
for what followed each step, where the source knows it. Letters: N steps of all episodes, M episodes, T steps of one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.registry import Registry

Episode = dict[str, NDArray[Any]]

BLOCK_BYTES = 64 << 20
"""About what is read at a time."""


@dataclass(frozen=True)
class Reading:
    """An opened data set.

    Args:
        episodes: {key: (T, *shape)} each, T >= 1, read when they are asked for.
        num_steps: N.
        facts: what the source says of itself, plain values: env_id, kwargs, action_bounds ...
    """

    episodes: Iterator[Episode]
    num_steps: int
    facts: Mapping[str, Any] = field(default_factory=dict)


class Reader(Protocol):
    """Opens a data set of one format."""

    def __call__(self, source: str, *, max_episode_steps: int | None = None) -> Reading:
        """Returns what `source` holds.

        Args:
            source: a path, or what else names a data set of this format.
            max_episode_steps: the time limit of the episodes, for sources that do not tell where they ended.

        Raises:
            MissingFileError: nothing is there.
            DataError: it is damaged, or lacks something.
            ConfigError: a library is missing, or the limit is of no use here.
        """


@dataclass(frozen=True)
class Format:
    """A format.

    Args:
        what: it is, for people: "D4RL's HDF5 files".
        recognizes: whether a source looks like one.
        read: opens it.
    """

    what: str
    recognizes: Callable[[str], bool]
    read: Reader


FORMATS: Registry[Format] = Registry("format")


def stored(values: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    """Returns numbers as we keep them: float64 becomes float32.

    Args:
        values: (T, *shape).
        name: in the source, for messages.
        where: the source, likewise.

    Raises:
        DataError: they are no numbers.
    """
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: '{name}' must hold numbers, but got dtype {values.dtype}; convert it first")
    return values.astype(np.float32) if values.dtype.kind == "f" and values.dtype != np.float32 else values


def flags(values: NDArray[Any], name: str, where: str) -> NDArray[np.bool_]:
    """Returns a column of zeros and ones as (N,) bool.

    Raises:
        DataError: it holds something else.
    """
    column = np.asarray(values)
    if column.dtype.kind not in "biuf" or not np.isin(column, (0, 1)).all():
        raise DataError(f"{where}: '{name}' must hold zeros and ones, but got {column.dtype} with other values")
    return np.asarray(column.reshape(len(column), -1).any(axis=1))


def check_lengths(lengths: Mapping[str, int], where: str) -> int:
    """Returns N.

    Args:
        lengths: of the columns, by name.
        where: the source, for messages.

    Raises:
        DataError: they differ, or are 0.
    """
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{where}: expected columns of one length, but got {listed}; the file is damaged")
    count = next(iter(lengths.values()))
    if count == 0:
        raise DataError(f"{where}: expected steps, but its columns are empty; get the file again")
    return count


def require(names: Mapping[str, object] | list[str], wanted: tuple[str, ...], where: str) -> None:
    """Raises DataError unless a source has the columns that its format must have."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{where}: expected the columns {', '.join(wanted)}, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; it has: {', '.join(names) or 'nothing'}"
        )


def refuse_limit(max_episode_steps: int | None, where: str) -> None:
    """Raises ConfigError if a limit is given for a source that tells where its episodes end."""
    if max_episode_steps is not None:
        raise ConfigError(f"{where} tells where its episodes end; leave --max-episode-steps out")
