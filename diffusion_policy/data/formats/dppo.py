"""DPPO's npz files (Ren et al. 2024): all steps in one row of columns, and the lengths of the trajectories.

`traj_lengths` (M,), `states` (N, ...), `actions` (N, Da); in some files `images` (N, 3 K, H, W) of K cameras,
`rewards` (N,), `terminals` (N,). Its scripts scale states and actions to [-1, 1] and put what they scaled by into
`normalization.npz` beside (obs_min, obs_max, action_min, action_max): x = 2 (raw - min) / (max - min + 1e-6) - 1.
That is undone here, to the rounding of float32. Rows behind the last trajectory are left. Letters: N steps, M
episodes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats import npz
from diffusion_policy.data.formats.reading import (
    FORMATS,
    Column,
    Episode,
    Format,
    Option,
    Reading,
    flags,
    narrowed,
    require,
    stored,
)
from diffusion_policy.errors import DataError, MissingFileError

NORMALIZATION = Option(
    "normalization", "NPZ", "what states and actions are scaled by, or none (default: normalization.npz beside, if any)"
)
_REQUIRED = ("traj_lengths", "states", "actions")
_NAMES = {"states": "observation", "actions": "action", "rewards": "reward"}
_SCALED = {"states": "obs", "actions": "action"}
_OTHERS = ("traj_lengths", "terminals", "images")
_SLACK = 1e-6  # in their formula

Limits = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def read_dppo(source: str, *, normalization: str | None = None) -> Reading:
    """Returns the trajectories of a file.

    Args:
        source: its path.
        normalization: path of the file of limits, or "none" to leave the numbers as they are.

    Raises:
        MissingFileError: there is no such file.
        DataError: one is damaged, or lacks a column.
    """
    with npz.opened(source, (*_NAMES, *_OTHERS)) as columns:
        require(columns, _REQUIRED, source)
        lengths = _lengths(columns.pop("traj_lengths"), source)
        total = int(lengths.sum())
        short = {name: column.length for name, column in columns.items() if column.length < total}
        if short:
            listed = ", ".join(f"{name} {length}" for name, length in short.items())
            raise DataError(f"{source}: traj_lengths say {total} steps, but got {listed}; the file is damaged")
        about = [each for name, column in columns.items() for each in _columns(name, column, source)]
        if behind := max(column.length for column in columns.values()) - total:
            about.append(Column(f"{behind} rows", "", (), None, "they lie behind the last trajectory"))
    limits, told = _limits(source, normalization)
    if limits:
        about = [_unscaled(each) for each in about]
    facts = {"normalization": told} if told else {}
    return Reading(_episodes(source, lengths, limits), total, facts, tuple(about), len(lengths))


def _lengths(column: npz.Column, source: str) -> NDArray[np.int64]:
    values = column.rows(column.length)
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not len(values) or (values != values.astype(int)).any():
        raise DataError(f"{source}: traj_lengths must be whole numbers (M,), but got {values.dtype} {values.shape}")
    empty = np.flatnonzero(values < 1)
    if empty.size:
        raise DataError(f"{source}: trajectory {empty[0]} has {int(values[empty[0]])} steps; remove it from the file")
    lengths: NDArray[np.int64] = values.astype(np.int64)
    return lengths


def _columns(name: str, column: npz.Column, source: str) -> Iterator[Column]:
    form = (name, str(column.dtype), column.shape)
    if name == "images":
        if len(column.shape) != 3 or column.shape[0] % 3 or column.dtype != np.uint8:
            raise DataError(f"{source}: 'images' must be uint8 (N, 3 K, H, W), but got {column.dtype} {column.shape}")
        for key in _cameras(column.shape[0] // 3):
            yield Column(*form, key, "channels last")
    elif name == "terminals":
        yield Column(*form, "terminated", "of the last step; truncated where it is 0")
    else:
        yield Column(*form, _NAMES[name], narrowed(column.dtype))


def _cameras(count: int) -> list[str]:
    return ["image"] if count == 1 else [f"image_{i}" for i in range(count)]


def _unscaled(column: Column) -> Column:
    if column.name not in _SCALED:
        return column
    return Column(column.name, column.dtype, column.shape, column.becomes, "scaled back from [-1, 1]")


def _limits(source: str, given: str | None) -> tuple[Limits, str]:
    """Returns {column: (min, max)} and the name of the file that says so; nothing where the numbers stay."""
    path = Path(given) if given else Path(source).with_name("normalization.npz")
    if given == "none" or (given is None and not path.is_file()):
        return {}, ""
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; give DPPO's normalization.npz, or --normalization none")
    wanted = tuple(f"{short}_{end}" for short in _SCALED.values() for end in ("min", "max"))
    with npz.opened(str(path), wanted) as columns:
        require(columns, wanted, str(path))
        found = {name: column.rows(column.length).astype(np.float64) for name, column in columns.items()}
    return {name: (found[f"{short}_min"], found[f"{short}_max"]) for name, short in _SCALED.items()}, path.name


def _episodes(source: str, lengths: NDArray[np.int64], limits: Limits) -> Iterator[Episode]:
    with npz.opened(source, (*_NAMES, *_OTHERS)) as columns:
        del columns["traj_lengths"]
        for i, steps in enumerate(lengths.tolist()):
            rows = {name: column.rows(steps) for name, column in columns.items()}
            yield _episode(rows, limits, f"{source}: trajectory {i}")


def _episode(rows: dict[str, NDArray[Any]], limits: Limits, where: str) -> Episode:
    episode: Episode = {}
    for name, values in rows.items():
        if name == "images":
            pictures = np.moveaxis(values, 1, -1)  # (T, 3 K, H, W) -> (T, H, W, 3 K)
            for j, key in enumerate(_cameras(values.shape[1] // 3)):
                episode[key] = np.ascontiguousarray(pictures[..., 3 * j : 3 * j + 3])
        elif name == "terminals":
            last = np.arange(len(values)) == len(values) - 1
            done = bool(flags(values, name, where)[-1])
            episode |= {"terminated": last & done, "truncated": last & (not done)}
        else:
            numbers = stored(values, name, where)
            episode[_NAMES[name]] = _raw(numbers, limits[name], name, where) if name in limits else numbers
    if "reward" in episode:
        if episode["reward"].size != len(episode["action"]):
            raise DataError(f"{where}: 'rewards' must be one number a step, but has {episode['reward'].shape}")
        episode["reward"] = episode["reward"].reshape(-1).astype(np.float32)
    return episode


def _raw(
    values: NDArray[Any], limits: tuple[NDArray[np.float64], NDArray[np.float64]], name: str, where: str
) -> NDArray[np.float32]:
    low, high = limits
    if low.shape != values.shape[1:] or high.shape != low.shape:
        raise DataError(
            f"{where}: '{name}' has {values.shape[1:]} numbers, but its limits {low.shape}; another file's?"
        )
    scaled = (values.astype(np.float64) + 1) / 2 * (high - low + _SLACK) + low
    return np.asarray(scaled, np.float32)


def _recognizes(source: str) -> bool:
    return Path(source).suffix == ".npz" and {"traj_lengths", "states"} <= set(npz.names(source))


FORMATS.register("dppo")(Format("DPPO's npz files", _recognizes, read_dppo, (NORMALIZATION,)))
