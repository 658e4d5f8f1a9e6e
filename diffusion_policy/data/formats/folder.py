"""A folder of recordings: CSV or npz files, pictures beside them, and a mapping file (`folder_mapping`).

Numbers become float32 (whole ones of an npz stay whole); a key has at least one axis beside the steps, except
`reward` and the flags `terminated`, `truncated`, `success` and `done`. Times must have one rate over all episodes.
Letters: N rows of a file, T steps of an episode.
"""

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data import store
from diffusion_policy.data.doctor.streams import TIME_KEYS
from diffusion_policy.data.formats import npz
from diffusion_policy.data.formats.csv_file import read_csv
from diffusion_policy.data.formats.file_order import in_order
from diffusion_policy.data.formats.folder_mapping import NAMES, TIME_UNITS, FolderMapping, read_mapping
from diffusion_policy.data.formats.pictures import read_pictures
from diffusion_policy.data.formats.reading import (
    FORMATS,
    Column,
    Episode,
    Format,
    Option,
    Reading,
    check_lengths,
    flags,
    narrowed,
    require,
    stored,
)
from diffusion_policy.errors import DataError, MissingFileError

MAPPING = Option("mapping", "YAML", "which columns are which key (default: mapping.yaml in SRC)")
_SUFFIXES = (".csv", ".npz")
_FLAGS = ("terminated", "truncated", "success", "done")
_RATES_DIFFER = 0.05  # of each other, more than jitter


class _Rows(Protocol):
    """A column that is read from its beginning on."""

    dtype: np.dtype[Any]
    length: int
    shape: tuple[int, ...]

    def rows(self, count: int) -> NDArray[Any]:
        """Returns the next `count` rows."""


def read_folder(source: str, *, mapping: str | None = None) -> Reading:
    """Returns the recordings of a folder.

    Args:
        source: its path.
        mapping: path of the mapping file; None for mapping.yaml in the folder.

    Raises:
        MissingFileError: there is no folder, mapping, file or picture.
        DataError: one of them is damaged, or does not hold what the mapping says.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise MissingFileError(f"{source} is no folder; give the one that holds the recordings")
    said = read_mapping(folder, Path(mapping) if mapping else None)
    found = (file for file in folder.glob(said.episodes) if file.is_file())
    files = in_order(found, folder, f"{source}: episodes")
    if not files:
        raise MissingFileError(f"{source}: no file matches {said.episodes}; correct the mapping")
    lengths = [_lengths(file, said) for file in files]
    rate, columns = _rate(files, lengths, said), _columns(files[0], said)
    facts: dict[str, Any] = {} if rate is None else {"control_hz": rate}
    facts |= {"units": dict(said.units)} if said.units else {}
    facts |= {"env_id": said.env_id, "kwargs": {}} if said.env_id else {}
    episodes = _episodes(folder, files, lengths, said, rate)
    return Reading(episodes, sum(map(sum, lengths)), facts, tuple(columns), sum(map(len, lengths)))


@contextmanager
def _opened(file: Path, said: FolderMapping) -> Iterator[Mapping[str, _Rows]]:
    """Gives the columns of a file: of an npz, those that the mapping names, for the others may be anything."""
    if file.suffix not in _SUFFIXES:
        raise DataError(f"{file}: expected a file of {' or '.join(_SUFFIXES)}; correct the mapping")
    if file.suffix == ".csv":
        yield read_csv(file, said.named)
        return
    with npz.opened(str(file), said.named) as columns:
        yield columns


def _names(file: Path, columns: Mapping[str, _Rows]) -> list[str]:
    """Returns the names of all columns of a file that is opened."""
    return npz.names(str(file)) if file.suffix == ".npz" else list(columns)


def _lengths(file: Path, said: FolderMapping) -> list[int]:
    """Returns the steps of the episodes in a file."""
    with _opened(file, said) as columns:
        require(_names(file, columns), said.named, str(file))
        lengths = {name: columns[name].length for name in said.columns}
        if not any(lengths.values()):
            raise DataError(f"{file} has no steps; remove it")
        count = check_lengths(lengths, str(file))
        if said.ends_column is not None:
            told = columns[said.ends_column].rows(columns[said.ends_column].length)
            if said.ends_value is not None:
                told = told.reshape(len(told), -1)[:, 0] == said.ends_value
            ends = _ends(told, count, f"{file}: '{said.ends}'")
        elif said.episode is not None:
            numbers = columns[said.episode].rows(count).reshape(count, -1)
            ends = np.append(np.flatnonzero((numbers[1:] != numbers[:-1]).any(axis=1)) + 1, count)
        else:
            ends = np.array([count])
    return [int(length) for length in np.diff(ends, prepend=0)]


def _ends(values: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    """Returns exclusive, cumulative ends, from such or from marks of the last steps."""
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise DataError(f"{where} must be ends or marks in one row, but got {values.dtype} {values.shape}")
    if len(values) == count and np.isin(values, (0, 1)).all() and count > 1:
        return np.union1d(np.flatnonzero(values) + 1, [count]).astype(np.int64)
    ends = values.astype(np.int64)
    if not len(ends) or (np.diff(ends, prepend=0) < 1).any() or ends[-1] != count:
        raise DataError(f"{where} must rise from at least 1 to the {count} steps, for no episode is empty; correct it")
    return ends


def _rate(files: Sequence[Path], lengths: Sequence[Sequence[int]], said: FolderMapping) -> float | None:
    """Returns steps a second, as the mapping says, or the times of the first episode of at least two."""
    if said.time is None or said.control_hz is not None:
        return said.control_hz
    for file, steps in zip(files, lengths, strict=True):
        before = next((i for i, count in enumerate(steps) if count > 1), None)
        if before is not None:
            with _opened(file, said) as columns:
                columns[said.time].rows(sum(steps[:before]))
                return _measured(columns[said.time].rows(steps[before]), said, str(file))
    return None


def _measured(times: NDArray[Any], said: FolderMapping, where: str) -> float | None:
    """Returns the rate of an episode's times, to four digits; None for a single step."""
    gaps = np.diff(times.astype(np.float64).reshape(len(times)))
    if not len(gaps):
        return None
    if not (gaps > 0).all():
        late = int(np.flatnonzero(~(gaps > 0))[0]) + 1
        raise DataError(f"{where}: '{said.time}' must rise from step to step, but step {late} is not later; sort it")
    return float(f"{1 / (np.median(gaps) * TIME_UNITS[said.time_unit]):.4g}")


def _columns(file: Path, said: FolderMapping) -> Iterator[Column]:
    used = {said.time: "its rate is kept", said.ends_column: "says where episodes end", said.episode: "likewise"}
    with _opened(file, said) as columns:
        for key, parts in said.keys.items():
            for part in parts:
                column, at = columns[part.name], "" if part.start is None else f"[{part.start}:{part.stop}]"
                note = "" if key in TIME_KEYS else narrowed(column.dtype)
                yield Column(f"{part.name}{at}", str(column.dtype), column.shape, key, note)
        for key, pattern in said.images.items():
            yield Column(pattern, "", (), key)
        for name in _names(file, columns):
            if not any(part.name == name for parts in said.keys.values() for part in parts):
                yield Column(name, "", (), None, used.get(name, "not in the mapping"))


def _episodes(
    folder: Path, files: Sequence[Path], lengths: Sequence[Sequence[int]], said: FolderMapping, rate: float | None
) -> Iterator[Episode]:
    for file, steps in zip(files, lengths, strict=True):
        with _opened(file, said) as columns:
            for index, count in enumerate(steps):
                where = str(file) if len(steps) == 1 else f"{file}: episode {index}"
                rows = {name: columns[name].rows(count) for name in said.columns}
                if said.time is not None:
                    _check_rate(_measured(rows[said.time], said, where), rate, where)
                episode = {key: _key(key, rows, said, where) for key in said.keys}
                for key, pattern in said.images.items():
                    here = pattern.replace("{episode}", glob.escape(file.stem)).replace("{index}", str(index))
                    episode[key] = read_pictures(folder, here, count, f"{where}: '{key}'")
                yield episode


def _check_rate(found: float | None, rate: float | None, where: str) -> None:
    if found is not None and rate is not None and abs(found / rate - 1) > _RATES_DIFFER:
        raise DataError(
            f"{where} has {found:g} steps a second, expected {rate:g} as said or as in the first that tells; bring all "
            f"to one rate: keep the times as a key (time_s, in seconds) instead of time:, then dp-convert --resample"
        )


def _key(key: str, rows: Mapping[str, NDArray[Any]], said: FolderMapping, where: str) -> NDArray[Any]:
    """Returns (T, ...) of a key, from the columns that it consists of."""
    found = []
    for part in said.keys[key]:
        values = stored(rows[part.name], part.name, where)
        if key in TIME_KEYS:
            values = rows[part.name].astype(np.float64)  # seconds since 1970 do not fit into float32
        values = values[:, None] if values.ndim == 1 else values
        if part.stop is not None and part.stop > values.shape[-1]:
            size, wanted = values.shape[-1], f"[{part.start}:{part.stop}]"
            raise DataError(f"{where}: '{part.name}' has {size} numbers, too few for {wanted}; correct the mapping")
        found.append(values[..., part.start : part.stop])
    if len({values.shape[:-1] for values in found}) != 1:
        shapes = ", ".join(str(values.shape[1:]) for values in found)
        raise DataError(f"{where}: '{key}' consists of columns that do not fit side by side: {shapes}")
    whole = np.concatenate(found, axis=-1) if len(found) > 1 else found[0]
    bad = np.flatnonzero(~np.isfinite(whole.reshape(len(whole), -1)).all(axis=1))
    if bad.size:
        raise DataError(
            f"{where}: '{key}' must be finite, but step {bad[0]} holds NaN or infinity ({bad.size} of {len(whole)} "
            f"steps); repair it, or take the file out of the folder or the key out of the mapping"
        )
    if key in _FLAGS:
        return flags(whole, key, where)
    if key != "reward":
        return whole
    if whole.size != len(whole):
        raise DataError(f"{where}: 'reward' must be one number a step, but has {whole.shape[1:]}")
    return whole.reshape(-1).astype(np.float32)


def _recognizes(source: str) -> bool:
    path = Path(source)
    if not path.is_dir() or store.is_group(path):
        return False
    if any((path / name).is_file() for name in NAMES):
        return True
    return any(any(path.glob(f"{below}*{suffix}")) for below in ("", "*/") for suffix in _SUFFIXES)


FORMATS.register("folder")(Format("a folder of CSV or npz files and pictures", _recognizes, read_folder, (MAPPING,)))
