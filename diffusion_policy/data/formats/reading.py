"""What every format gives: episodes with our names, one after another, and what the source says of itself.

Our names are `observation` (or those of its fields), `action`, `reward`, `terminated`, `truncated`, and `next_<key>`
for what followed each step, where the source knows it. Letters: N steps of all episodes, M episodes, T steps of one.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import DataError
from diffusion_policy.registry import Registry

Episode = dict[str, NDArray[Any]]

BLOCK_BYTES = 64 << 20
"""About what is read at a time."""


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Column:
    """An array of a data set, and what becomes of it.

    Args:
        name: where it comes from: "obs/robot0_eef_pos".
        dtype: there.
        shape: of one step, there.
        becomes: its name where it goes; None where it is dropped.
        note: what is done to it, or why it is dropped.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    becomes: str | None
    note: str = ""


@dataclass(frozen=True)
class Option:
    """A setting of some formats: a keyword of their functions and an argument of dp-convert.

    Args:
        name: "max_episode_steps", or --max-episode-steps.
        metavar: its value, for people.
        help: what it does, one line.
        parse: of its text.
    """

    name: str
    metavar: str
    help: str
    parse: Callable[[str], Any] = str

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")


MAX_EPISODE_STEPS = Option(
    "max_episode_steps", "N", "time limit, for files that do not mark where it struck", parse=int
)


@dataclass(frozen=True)
class Reading:
    """An opened data set.

    Args:
        episodes: {key: (T, *shape)} each, T >= 1, read when they are asked for.
        num_steps: N.
        facts: what the source says of itself, plain values: env_id, kwargs, action_bounds, control_hz ...
        columns: of the source, those that are dropped, too; empty where they are called as in the episodes.
        num_episodes: M, None where only reading all would tell.
    """

    episodes: Iterator[Episode]
    num_steps: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    num_episodes: int | None = None


@dataclass(frozen=True)
class Format:
    """A format that can be read.

    Args:
        what: it is, for people: "D4RL's HDF5 files".
        recognizes: whether a source looks like one; it never raises. Formats are asked in the order of their names.
        read: `read(source, **options)` opens a data set; `source` is a path, or what else names one of this format.
            It raises MissingFileError where nothing is there, DataError where it is damaged or lacks something, and
            ConfigError where a library is missing or an option is of no use. No data are read until they are asked for.
        options: that `read` takes, those that were given.
    """

    what: str
    recognizes: Callable[[str], bool]
    read: Callable[..., Reading]
    options: tuple[Option, ...] = ()


FORMATS: Registry[Format] = Registry("format")


def plain_name(name: str, where: str) -> str:
    """Returns a name that can be a key, a file's name and an attribute everywhere.

    Raises:
        DataError: it is something else: a path, empty, or with other signs.
    """
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{where}: a name must consist of letters, digits, '_', '-' and '.', and begin with one of the first "
            f"three, but got {name!r}; rename it"
        )
    return name


def shown(name: str) -> str:
    """Returns a name from a file as it can be printed: on one line, and without what commands a terminal."""
    return name if name.isprintable() else repr(name)


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


def narrowed(dtype: np.dtype[Any]) -> str:
    """Returns what `stored` does to a dtype, in words; nothing where it does nothing."""
    return f"{dtype} -> float32" if dtype.kind == "f" and dtype != np.float32 else ""


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
        listed = ", ".join(f"{shown(name)} {length}" for name, length in lengths.items())
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
            f"{'is' if len(missing) == 1 else 'are'} missing; it has: {', '.join(map(shown, names)) or 'nothing'}"
        )
