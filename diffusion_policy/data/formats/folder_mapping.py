"""The mapping file of a folder of recordings: which columns are which key.

    episodes: "episodes/*.csv"                  # .csv or .npz, sorted by number; one episode each, or see ends, episode
    control_hz: 20                              # steps a second; or time: a column of times, from which it is found
    keys:
      agent_pos: [x, y, z]                      # columns side by side
      action: command                           # or some of an array's numbers: command[0:3]
    images:
      front: "images/{episode}/front_*.png"     # a picture a step, sorted by number; or a film
    units: {agent_pos: m}                       # noted

More: `time_unit` (s, ms, us, ns), `ends` (an array of exclusive cumulative ends, or of marks 0 and 1, in files of
several episodes), `episode` (a column that changes where one begins), `env_id`. `{episode}` is the file's name
without its suffix, `{index}` the number of the episode in its file. Patterns are relative to the folder and stay in
it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from diffusion_policy.data.formats.reading import plain_name
from diffusion_policy.errors import DataError, MissingFileError

NAMES = ("mapping.yaml", "mapping.yml")
TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<start>\d+)(?P<range>:(?P<stop>\d+))?\])?")
_ENDS = re.compile(r"[^=]+(==\s*-?\d+(\.\d+)?\s*)?")


@dataclass(frozen=True)
class Part:
    """A column, or some of its numbers.

    Args:
        name: of the column.
        start: first number; None for all.
        stop: behind the last.
    """

    name: str
    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True)
class FolderMapping:
    """What a mapping file says; see the module.

    Args:
        episodes: pattern of the files.
        keys: {key: columns that lie side by side in it}.
        images: {key: pattern of pictures, or a film}.
        control_hz: steps a second; None where `time` tells, or nothing.
        time: column of times.
        time_unit: of them.
        ends: array of ends, in files of several episodes; or what marks a last step: "step_type == 2".
        episode: column that changes where an episode begins.
        units: {key: unit}.
        env_id: environment that the data are of.
    """

    episodes: str
    keys: Mapping[str, tuple[Part, ...]]
    images: Mapping[str, str] = field(default_factory=dict)
    control_hz: float | None = None
    time: str | None = None
    time_unit: str = "s"
    ends: str | None = None
    episode: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    env_id: str | None = None

    @property
    def columns(self) -> list[str]:
        """Names of all columns that are read as steps."""
        named = [part.name for parts in self.keys.values() for part in parts]
        return list(dict.fromkeys([*named, *filter(None, (self.time, self.episode))]))

    @property
    def named(self) -> tuple[str, ...]:
        """Names of all columns that a file must have."""
        return tuple(dict.fromkeys([*self.columns, *filter(None, [self.ends_column])]))

    @property
    def ends_column(self) -> str | None:
        """Name of the array of `ends`."""
        return self.ends.partition("==")[0].strip() if self.ends else None

    @property
    def ends_value(self) -> float | None:
        """What marks a last step in it; None where the array is ends, or marks 0 and 1."""
        text = self.ends.partition("==")[2].strip() if self.ends else ""
        return float(text) if text else None


def read_mapping(folder: Path, path: Path | None) -> FolderMapping:
    """Returns what a mapping file says.

    Args:
        folder: of the recordings.
        path: of the file; None for mapping.yaml in the folder.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is no mapping; says where.
    """
    path = path or next((folder / name for name in NAMES if (folder / name).is_file()), folder / NAMES[0])
    if not path.is_file():
        raise MissingFileError(
            f"{path} does not exist; write which columns are which key (ten lines, see docs/data.md), or give it "
            f"with --mapping"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no YAML ({' '.join(str(error).split())}); correct it") from error
    known = tuple(FolderMapping.__dataclass_fields__)
    if not isinstance(content, dict) or not {"episodes", "keys"} <= set(content) or set(content) - set(known):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: expected episodes, keys and some of {', '.join(known[2:])}, but got {found}")
    return _checked(content, str(path))


def _checked(content: dict[str, Any], where: str) -> FolderMapping:
    keys, images = (_section(content.get(name), name, where) for name in ("keys", "images"))
    if not keys:
        raise DataError(f"{where}: expected keys with the columns that they consist of, but there are none")
    twice = [name for name in images if name in keys]
    if twice:
        raise DataError(f"{where}: '{twice[0]}' stands under keys and images; rename one")
    rate, unit = content.get("control_hz"), content.get("time_unit", "s")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0):
        raise DataError(f"{where}: control_hz must be a number above 0, but got {rate!r}")
    if unit not in TIME_UNITS:
        raise DataError(f"{where}: time_unit must be one of {', '.join(TIME_UNITS)}, but got {unit!r}")
    if not _ENDS.fullmatch(str(content.get("ends", "ends"))):
        raise DataError(f"{where}: ends must be a column, or like 'step_type == 2', but got {content['ends']!r}")
    if content.get("ends") is not None and content.get("episode") is not None:
        raise DataError(f"{where}: ends and episode say the same twice; leave one out")
    return FolderMapping(
        episodes=inside(content["episodes"], f"{where}: episodes"),
        keys={key: _parts(value, f"{where}: keys.{key}") for key, value in keys.items()},
        images={key: inside(value, f"{where}: images.{key}") for key, value in images.items()},
        control_hz=None if rate is None else float(rate),
        time_unit=unit,
        units={key: str(value) for key, value in _section(content.get("units"), "units", where).items()},
        **{name: _word(content.get(name), f"{where}: {name}") for name in ("time", "ends", "episode", "env_id")},
    )


def inside(pattern: object, where: str) -> str:
    """Returns a pattern of paths that stays in its folder.

    Raises:
        DataError: it is none, absolute, or leads out.
    """
    if not isinstance(pattern, str) or not pattern:
        raise DataError(f"{where}: expected a pattern of paths, but got {pattern!r}")
    absolute = PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).anchor
    if absolute or ".." in PureWindowsPath(pattern).parts:  # which splits at both slashes
        raise DataError(f"{where}: expected a path inside the folder, but got {pattern!r}; move the files into it")
    return pattern


def _section(content: object, name: str, where: str) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DataError(f"{where}: {name} must be a list of 'key: value', but got {content!r}")
    return {plain_name(str(key), f"{where}: {name}"): value for key, value in content.items()}


def _parts(value: object, where: str) -> tuple[Part, ...]:
    words = value if isinstance(value, list) else [value]
    parts = []
    for word in words:
        found = _PART.fullmatch(word) if isinstance(word, str) else None
        if found is None:
            raise DataError(f"{where}: expected a column, one like state[0:3], or a list of them, but got {word!r}")
        start = None if found["start"] is None else int(found["start"])
        stop = None if start is None else int(found["stop"]) if found["range"] else start + 1
        if start is not None and stop is not None and stop <= start:
            raise DataError(f"{where}: expected a range like state[0:3], but got {word!r}")
        parts.append(Part(found["name"].strip(), start, stop))
    if not parts:
        raise DataError(f"{where}: expected a column, but got an empty list")
    return tuple(parts)


def _word(value: object, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: expected a name, but got {value!r}")
    return value
