"""Which episodes a LeRobot data set has, and in which files they lie.

Letters: M episodes, T steps of an episode.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_policy.data.formats.lerobot import layout
from diffusion_policy.data.formats.lerobot.info import Info, filled, read_lines
from diffusion_policy.errors import DataError, MissingFileError

_LONGEST = 1e7  # seconds of a video


@dataclass(frozen=True)
class Listed:
    """An episode.

    Args:
        index: its number.
        length: T.
        videos: {feature: file, second at which it begins there}.
    """

    index: int
    length: int
    videos: Mapping[str, tuple[Path, float]] = field(default_factory=dict)


def episodes(root: Path, info: Info) -> list[Listed]:
    """Returns the episodes, in the order of their numbers.

    Raises:
        MissingFileError: there is no table of them.
        DataError: it is damaged, or does not fit what info.json tells.
    """
    videos = [name for name, told in info.features.items() if told.dtype == "video"]
    rows = list(_old_rows(root) if info.old else _rows(root, videos))
    where = f"{root}: table of episodes"
    try:
        found = sorted((_listed(root, info, row, videos) for row in rows), key=lambda each: each.index)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: expected what LeRobot writes, but {error!r} came of it; copy it again") from error
    if [each.index for each in found] != list(range(info.num_episodes)):
        raise DataError(
            f"{where}: expected episodes 0 to {info.num_episodes - 1} as info.json says, but found {len(found)}, "
            f"{_some(found)}; copy it again"
        )
    empty = [each.index for each in found if each.length < 1]
    if empty:
        raise DataError(f"{where}: episode {empty[0]} has no frames; delete it by LeRobot's lerobot-edit-dataset")
    total = sum(each.length for each in found)
    if total != info.num_frames:
        raise DataError(f"{where}: its lengths sum to {total}, but info.json says {info.num_frames}; copy it again")
    return found


def data_files(root: Path, info: Info, listed: Sequence[Listed]) -> list[Path]:
    """Returns the data files, in the order of their rows.

    Of v3.0 all files in data/ are taken, sorted, as LeRobot does: which file an episode lies in is told wrongly by data
    sets that its script made of v2.1.

    Raises:
        MissingFileError: there is none.
        DataError: a path leads out of the data set.
    """
    if info.old:
        where = f"{root / layout.INFO}: data_path"
        return [root / filled(info.data_path, where, **_counted(info, each.index)) for each in listed]
    paths = sorted((root / "data").glob("*/*.parquet"))
    if not paths:
        raise MissingFileError(f"{root / 'data'} holds no parquet files; the data set is incomplete, copy it again")
    return paths


def tasks(root: Path, info: Info) -> list[str]:
    """Returns the texts of the tasks, as they are counted.

    Raises:
        MissingFileError: there is no table of them.
        DataError: it is damaged.
    """
    path = root / (layout.OLD_TASKS if info.old else layout.TASKS)
    if info.old:
        found = [(row.get(layout.TASK), row.get("task")) for row in read_lines(path)]
    else:
        with layout.parquet(path) as file:
            names = [name for name in file.schema_arrow.names if name != layout.TASK]
            if layout.TASK not in file.schema_arrow.names or len(names) != 1:
                raise DataError(f"{path}: expected task_index and one column of texts, but got {', '.join(names)}")
            table = file.read()
            found = list(zip(*(table[name].to_pylist() for name in (layout.TASK, names[0])), strict=True))
    texts = dict(found)
    if sorted(map(str, texts)) != sorted(map(str, range(len(found)))) or not all(
        isinstance(text, str) for text in texts.values()
    ):
        raise DataError(f"{path}: expected texts counted from 0, but got {str(found[:3])[:100]}; copy it again")
    return [str(texts[i]) for i in range(len(found))]


def _rows(root: Path, videos: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of v3.0's table, without the statistics."""
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise MissingFileError(f"{root / 'meta' / 'episodes'} holds no table of episodes; copy the data set again")
    names = ["episode_index", "length"]
    for name in videos:
        names += [f"videos/{name}/{what}" for what in ("chunk_index", "file_index", "from_timestamp")]
    for path in paths:
        with layout.parquet(path) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path}: expected the columns {', '.join(names)}, but {missing[0]} is missing")
            for batch in file.iter_batches(columns=names, use_threads=False):
                yield from batch.to_pylist()


def _old_rows(root: Path) -> Iterator[dict[str, Any]]:
    yield from read_lines(root / layout.OLD_EPISODES)


def _listed(root: Path, info: Info, row: Mapping[str, Any], videos: Sequence[str]) -> Listed:
    index, length, where = int(row["episode_index"]), int(row["length"]), f"{root / layout.INFO}"
    paths: dict[str, tuple[Path, float]] = {}
    for name in videos:
        begin, told = 0.0, _counted(info, index)
        if not info.old:
            begin = float(row[f"videos/{name}/from_timestamp"])
            if not 0 <= begin < _LONGEST:
                raise DataError(f"{root}: episode {index} must begin at a second of its video, but got {begin:g}")
            told = {each: int(row[f"videos/{name}/{each}"]) for each in ("chunk_index", "file_index")}
        paths[name] = (filled(str(info.video_path), f"{where}: video_path", video_key=name, **told), begin)
    return Listed(index, length, paths)


def _counted(info: Info, index: int) -> dict[str, int]:
    """Returns what the paths of v2 are filled with."""
    return {"episode_chunk": index // info.per_chunk, "episode_index": index}


def _some(found: Sequence[Listed]) -> str:
    shown = ", ".join(str(each.index) for each in found[:5])
    return f"with the numbers {shown}{' ...' if len(found) > 5 else ''}"
