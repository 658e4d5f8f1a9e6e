"""D4RL's HDF5 files (Fu et al. 2020): all steps in one row of columns, whose ends are marked.

`observations` (N, ...), `actions` (N, ...), `rewards` (N,), `terminals` (N,); in most files `timeouts` (N,), in some
`next_observations` (N, ...). What else there is (infos/, metadata/) is left. Letters: N steps, M episodes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.episodes import Ends, spans, starts
from diffusion_policy.data.formats import hdf5
from diffusion_policy.data.formats.reading import (
    BLOCK_BYTES,
    FORMATS,
    MAX_EPISODE_STEPS,
    Column,
    Episode,
    Format,
    Reading,
    check_lengths,
    flags,
    narrowed,
    require,
    stored,
)
from diffusion_policy.errors import ConfigError, DataError

_WHOSE = "D4RL's files"
_REQUIRED = ("observations", "actions", "rewards", "terminals")
_NAMES = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "next_observations": "next_observation",
}
_ENDS = {"terminals": ("terminated", ""), "timeouts": ("truncated", "and where the file breaks off")}


def read_d4rl(source: str, *, max_episode_steps: int | None = None) -> Reading:
    """Returns the episodes of a file; they end at terminals and timeouts.

    Without timeouts, they end at terminals and after `max_episode_steps`, or where `next_observations` is not the
    observation of the next row. What the file breaks off in the middle of is truncated there.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, lacks a column, or nothing tells where episodes end.
        ConfigError: h5py is missing, or a limit is given for a file with timeouts.
    """
    with hdf5.opened(source, _WHOSE) as file:
        require(list(file), _REQUIRED, source)
        names = [*_REQUIRED, *(name for name in ("timeouts", "next_observations") if name in file)]
        for name in names:
            array = hdf5.member(file, name, source)
            if not hasattr(array, "shape") or not array.shape:
                raise DataError(f"{source}: '{name}' must be an array of steps, but it is none; the file is damaged")
        count = check_lengths({name: len(file[name]) for name in names}, source)
        terminated = flags(file["terminals"][:], "terminals", source)
        ends = _ends(file, terminated, max_episode_steps, source)
        columns = tuple(_column(file, name) for name in file)
    taken = [name for name in names if name in _NAMES]
    return Reading(_episodes(source, taken, ends, terminated), count, columns=columns, num_episodes=len(ends))


def _column(file: Any, name: str) -> Column:
    """Returns what becomes of a member of the file."""
    if file.get(name, getclass=True, getlink=True).__name__ != "HardLink":
        return Column(name, "link", (), None, "not followed")
    if not hasattr(file[name], "shape"):
        return Column(name, "group", (), None, "no column of steps")
    dtype, shape = file[name].dtype, tuple(file[name].shape[1:])
    if name in _NAMES:
        return Column(name, str(dtype), shape, _NAMES[name], narrowed(dtype))
    if name in _ENDS:
        return Column(name, str(dtype), (), *_ENDS[name])
    return Column(name, str(dtype), shape, None, "not known to D4RL's layout")


def _ends(file: Any, terminated: NDArray[np.bool_], limit: int | None, source: str) -> Ends:
    """Returns (M,) exclusive, cumulative ends."""
    count = len(terminated)
    over = terminated.copy()
    if "timeouts" in file:
        if limit is not None:
            raise ConfigError(f"{source} tells where its episodes end; leave --max-episode-steps out")
        over |= flags(file["timeouts"][:], "timeouts", source)
    elif limit is not None:
        if limit < 1:
            raise ConfigError(f"--max-episode-steps must be at least 1, but got {limit}")
        ends = np.append(np.flatnonzero(terminated) + 1, count)
        first = np.repeat(starts(ends), np.diff(ends, prepend=0))  # of each step's segment between two terminals
        over |= (np.arange(count) - first + 1) % limit == 0
    elif "next_observations" in file:
        over[:-1] |= _jumps(file["observations"], file["next_observations"])
    else:
        raise DataError(
            f"{source}: nothing tells where episodes end, expected timeouts or next_observations; give the "
            f"environment's time limit with --max-episode-steps N"
        )
    over[-1] = True
    return (np.flatnonzero(over) + 1).astype(np.int64)


def _jumps(observations: Any, following: Any) -> NDArray[np.bool_]:
    """Returns (N - 1,): whether a row's next observation is not what the next row observes."""
    count, found = len(observations), []
    size = max(1, BLOCK_BYTES // max(1, observations.dtype.itemsize * int(np.prod(observations.shape[1:]))))
    for begin in range(0, count - 1, size):
        stop = min(begin + size, count - 1)
        both = (following[begin:stop], observations[begin + 1 : stop + 1])
        differ = np.not_equal(*(rows.astype(np.float32) for rows in both))  # as they are stored; a file may mix types
        found.append(differ.reshape(stop - begin, -1).any(axis=1))
    return np.concatenate(found) if found else np.zeros(0, bool)


def _episodes(source: str, columns: list[str], ends: Ends, terminated: NDArray[np.bool_]) -> Iterator[Episode]:
    with hdf5.opened(source, _WHOSE) as file:
        for name in columns:
            hdf5.member(file, name, source)  # the file may have been another one when it was looked at
        row = sum(file[name].dtype.itemsize * int(np.prod(file[name].shape[1:])) for name in columns)
        for first, stop in spans(ends, max(1, BLOCK_BYTES // max(1, row))):
            begin, end = int(ends[first - 1]) if first else 0, int(ends[stop - 1])
            block = {_NAMES[name]: stored(file[name][begin:end], name, source) for name in columns}
            if block["reward"].size != end - begin:
                raise DataError(f"{source}: 'rewards' must be one number a step, but has {block['reward'].shape}")
            block["reward"] = block["reward"].reshape(end - begin)
            for i in range(first, stop):
                rows = slice((int(ends[i - 1]) if i else 0) - begin, int(ends[i]) - begin)
                episode = {key: values[rows] for key, values in block.items()}
                last = np.arange(rows.start, rows.stop) == rows.stop - 1
                episode["terminated"] = terminated[begin:end][rows].copy()
                episode["truncated"] = last & ~episode["terminated"]
                yield episode


def _recognizes(source: str) -> bool:
    return Path(source).suffix in hdf5.SUFFIXES and not hdf5.holds_group(source, "data")


FORMATS.register("d4rl")(Format("D4RL's HDF5 files", _recognizes, read_d4rl, (MAX_EPISODE_STEPS,)))
