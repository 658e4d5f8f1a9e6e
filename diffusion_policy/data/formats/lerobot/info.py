"""A data set's info.json, checked: what it tells comes from others, and names files to be opened."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from diffusion_policy.data.formats.lerobot import layout
from diffusion_policy.data.formats.reading import plain_name
from diffusion_policy.errors import DataError, MissingFileError

_VERSIONS = ("v2.0", "v2.1", "v3.0")
_FILLS = ("chunk_index", "file_index", "video_key", "episode_chunk", "episode_index")
_WIDTH = re.compile(r"(0?[0-9]d?)?")
_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_FASTEST = 1e5  # frames a second
MOVING = ("image", "video")


@dataclass(frozen=True)
class Told:
    """What is told of a feature.

    Args:
        dtype: a NumPy name, image, video or string.
        shape: of a step.
        names: of its numbers, where they are a plain list.
        fps: of videos, where it is told.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    fps: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of pictures; channels come first or last, as the names say."""
        first = self.shape[0] in (1, 3, 4) and (self.names or ("",))[0].startswith("channel")
        return (self.shape[1], self.shape[2]) if first else (self.shape[0], self.shape[1])


@dataclass(frozen=True)
class Info:
    """What info.json tells.

    Args:
        version: "v3.0".
        fps: frames a second.
        features: {name: what is told}, without LeRobot's own counters.
        data_path: of files, to be filled.
        video_path: likewise, None without videos.
        per_chunk: files in a folder, for v2.
        num_episodes: M.
        num_frames: N.
        robot: its type, None where it is not told.
    """

    version: str
    fps: float
    features: Mapping[str, Told]
    data_path: str
    video_path: str | None
    per_chunk: int
    num_episodes: int
    num_frames: int
    robot: str | None

    @property
    def old(self) -> bool:
        """Whether every episode is a file (v2)."""
        return self.version != "v3.0"


def read_info(root: Path) -> Info:
    """Returns what info.json tells.

    Raises:
        MissingFileError: there is none.
        DataError: it is damaged, of an unknown version, or contradicts itself.
    """
    path = root / layout.INFO
    told = read_json(path)
    try:
        version = str(told["codebase_version"])
        if version not in _VERSIONS:
            raise DataError(
                f"{path}: expected version {', '.join(_VERSIONS)}, but got {version}; convert it by LeRobot"
            )
        features = {plain_name(str(name), str(path)): _told(each) for name, each in told["features"].items()}
        videos = any(each.dtype == "video" for each in features.values())
        info = Info(
            version,
            float(told["fps"]),
            features,
            str(told["data_path"]),
            str(told["video_path"]) if videos else None,
            int(told.get("chunks_size") or layout.FILES_PER_CHUNK),
            int(told["total_episodes"]),
            int(told["total_frames"]),
            str(told["robot_type"]) if told.get("robot_type") else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: expected what LeRobot writes, but {error!r} came of it; get the file again"
        ) from error
    _check(info, str(path))
    return info


def read_json(path: Path) -> dict[str, Any]:
    """Returns what a JSON file holds.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged.
    """
    return parsed(_text(path), str(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns what a file of one JSON object a line holds; raises as `read_json`."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    return [parsed(line, f"{path}: line {i + 1}") for i, line in enumerate(lines)]


def parsed(text: str, where: str) -> dict[str, Any]:
    """Returns a JSON object; raises DataError if it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: damaged or no JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a JSON object, but got {type(content).__name__}; copy it again")
    return content


def filled(template: str, where: str, **values: int | str) -> Path:
    """Returns a path within a data set.

    Args:
        template: from its info.json: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet".
        where: that file, for messages.
        values: to put in.

    Raises:
        DataError: the template asks for something else, or leads out of the data set.
    """
    try:
        for _, field, width, conversion in Formatter().parse(template):
            if field is not None and (field not in values or conversion or not _WIDTH.fullmatch(width or "")):
                raise DataError(f"{where}: a path may be filled with {', '.join(_FILLS)}, but got {template!r}")
        path = template.format(**values)
    except (ValueError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: {template!r} is no path to be filled ({error}); get the file again") from error
    return Path(*(plain_name(part, where) for part in path.split("/")))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{path} does not exist; the data set is incomplete, copy it again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy it again") from error


def _told(feature: Mapping[str, Any]) -> Told:
    names = feature.get("names")
    if isinstance(names, dict) and len(names) == 1:  # {"motors": [...]}
        names = next(iter(names.values()))
    plain = tuple(map(str, names)) if isinstance(names, list) and names else None
    extra = feature.get("info") or feature.get("video_info") or {}
    rate = extra.get("video.fps")
    shape = tuple(int(size) for size in feature["shape"])
    return Told(str(feature["dtype"]), shape, plain, None if rate is None else float(rate))


def _check(info: Info, where: str) -> None:
    if not 0 < info.fps < _FASTEST:
        raise DataError(f"{where}: expected frames a second above 0, but got fps {info.fps:g}; correct it")
    if info.num_episodes < 1 or info.num_frames < 1:
        raise DataError(
            f"{where}: expected episodes with frames, but it tells of {info.num_episodes} episodes, {info.num_frames} "
            f"frames; record some first"
        )
    for name, told in info.features.items():
        moving = told.dtype in MOVING
        if not moving and told.dtype != "string" and not _NUMBERS.fullmatch(told.dtype):
            raise DataError(f"{where}: '{name}' must hold numbers or pictures, but has dtype {told.dtype!r}; drop it")
        if (moving and len(told.shape) != 3) or min(told.shape, default=1) < 1:
            raise DataError(f"{where}: '{name}' cannot be {told.dtype} of shape {told.shape}; get the file again")
        if told.fps is not None and abs(told.fps - info.fps) > 1e-3 * info.fps:
            raise DataError(
                f"{where}: '{name}' has {told.fps:g} frames a second, the data set {info.fps:g}; expected one rate, "
                f"resample it first"
            )
