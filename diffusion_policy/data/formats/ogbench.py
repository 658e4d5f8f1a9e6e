"""OGBench's npz files (Park et al. 2025): `observations`, `actions`, `terminals`, and no reward where goals are free.

A trajectory of T steps takes T + 1 rows there: its last row, marked by `terminals`, is the state that it ended in, with
an action that nobody took. Files saved from the library's compact form have `valids`, 0 in that row, and `terminals` in
the row before, too; those of its regular form have `next_observations`, and T rows. A trajectory ends because its time
is over: that is a truncation. Single-task files have `masks`, 0 in steps that solve the task, after which the recording
may go on: such a step ends an episode here, terminated, and the next one begins another. Rows are read one after
another, so a file may be larger than the memory.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.episodes import Ends
from diffusion_policy.data.formats import npz
from diffusion_policy.data.formats.reading import (
    FORMATS,
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
from diffusion_policy.errors import DataError

_REQUIRED = ("observations", "actions", "terminals")
_NAMES = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "next_observations": "next_observation",
}
_FLAGS = ("terminals", "valids", "masks")
_STATE = ("qpos", "qvel", "button_states")  # of the simulator; kept under their names
_KNOWN = (*_NAMES, *_FLAGS, *_STATE)


def read_ogbench(source: str) -> Reading:
    """Returns the trajectories of a file as truncated episodes, with what followed each step.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged or lacks a column.
    """
    with npz.opened(source, _KNOWN) as columns:
        require(columns, _REQUIRED, source)
        used = [name for name in (*_NAMES, *_FLAGS, *_STATE) if name in columns]
        count = check_lengths({name: columns[name].length for name in used}, source)
        terminals = flags(columns["terminals"].rows(count), "terminals", source)
        valids = flags(columns["valids"].rows(count), "valids", source) if "valids" in columns else None
        about = tuple(_column(name, columns[name], "next_observations" in used) for name in used)
        solved = np.zeros(count, bool)
        if "masks" in columns:
            solved = ~flags(columns["masks"].rows(count), "masks", source)
    given = "next_observations" in used
    if solved.any() and not given:
        raise DataError(
            f"{source}: masks say that {int(solved.sum())} steps solve the task, but without next_observations the "
            f"step that follows each would be lost; write the file with next_observations (OGBench's regular form)"
        )
    final = (terminals.copy() if valids is None else ~valids) | solved
    final[-1] = True
    ends = (np.flatnonzero(final) + 1).astype(np.int64)
    keys = [name for name in used if name not in _FLAGS]
    steps = count if given else count - len(ends)
    return Reading(_episodes(source, keys, ends, solved, given=given), steps, columns=about)


def _column(name: str, column: npz.Column, given: bool) -> Column:
    """Returns what becomes of an array; `given` says whether what follows a step is an array, too."""
    notes = {
        "terminals": ("truncated", "its trajectories end because their time is over"),
        "masks": ("terminated", "0 where the task is solved"),
        "valids": (None, "says which rows are no steps"),
    }
    becomes, note = notes.get(name, (_NAMES.get(name, name), narrowed(column.dtype)))
    if name == "observations" and not given:
        note = "; ".join(filter(None, (note, "also next_observation, from the row after")))
    return Column(name, str(column.dtype), column.shape, becomes, note)


def _episodes(
    source: str, names: list[str], ends: Ends, solved: NDArray[np.bool_], *, given: bool
) -> Iterator[Episode]:
    """Yields the episodes that stop before `ends`; those whose last step is `solved` (N,) are terminated."""
    with npz.opened(source, _KNOWN) as columns:
        for stop, length in zip(ends.tolist(), np.diff(ends, prepend=0).tolist(), strict=True):
            rows = {_NAMES.get(name, name): stored(columns[name].rows(length), name, source) for name in names}
            if not given:
                rows = {"next_observation": rows["observation"][1:], **{key: each[:-1] for key, each in rows.items()}}
            steps = len(rows["action"])
            if not steps:  # a state alone
                continue
            last = np.arange(steps) == steps - 1
            over = bool(solved[stop - 1])
            yield {**rows, "terminated": last & over, "truncated": last & (not over)}


def _recognizes(source: str) -> bool:
    return Path(source).suffix == ".npz" and "traj_lengths" not in npz.names(source)


FORMATS.register("ogbench")(Format("OGBench's npz files", _recognizes, read_ogbench))
