"""LeRobot's data sets as episodes; `layout` says which feature becomes which key, or a record of ours does.

Their `next.done` marks the last frame of an episode, whatever ended it. Without `next.terminated` beside it, an
episode counts as terminated if it is marked and, where there is a `next.success`, was successful in its last frame; as
truncated otherwise. The text of a task goes into the provenance; `task_index` becomes a key where there are several.
Pictures in videos are what the codec kept of them. Letters: T steps of an episode.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.lerobot import columns as arrays
from diffusion_policy.data.formats.lerobot import index, layout
from diffusion_policy.data.formats.lerobot.following import Following
from diffusion_policy.data.formats.lerobot.info import MOVING, Info, Told, parsed, read_info
from diffusion_policy.data.formats.lerobot.video import Camera
from diffusion_policy.data.formats.reading import FORMATS, Column, Episode, Format, Reading, flags, narrowed, stored
from diffusion_policy.data.formats.record import Record
from diffusion_policy.errors import DataError, DiffusionPolicyError, MissingFileError

_COUNTERS = ("timestamp", "frame_index", "episode_index", "index", layout.TASK)
logger = logging.getLogger(__name__)

_RATE_SLACK = 0.05  # of the rate: clocks of real robots jitter
_GAP = 1.0  # steps more or less than one from a frame to the next: no jitter


@dataclass(frozen=True)
class _Source:
    """An opened data set.

    Args:
        root: its folder.
        info: what info.json tells.
        record: ours, where we wrote it.
        places: {key: feature, start, stop}, likewise.
        keys: {feature: key}, without a record.
    """

    root: Path
    info: Info
    record: Record | None
    places: Mapping[str, tuple[str, int, int]]
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def features(self) -> list[str]:
        """The features that are read."""
        return list(self.keys) or sorted({name for name, _, _ in self.places.values()})


def read_lerobot(source: str) -> Reading:
    """Returns the episodes of a local folder, v3.0, v2.1 or v2.0.

    Raises:
        MissingFileError: a file is missing.
        DataError: one is damaged, or they do not fit together.
        ConfigError: pyarrow is missing.
    """
    root = Path(source)
    if not root.is_dir():
        raise MissingFileError(f"{source} does not exist; give the folder of a LeRobot data set, which holds meta/")
    layout.library(source)
    info = read_info(root)
    listed = index.episodes(root, info)
    texts = index.tasks(root, info)
    record, places = _recorded(root)
    keys = {} if record is not None else _keys(info, len(texts), source)
    opened = _Source(root, info, record, places, keys)
    names = {key: list(told.names) for name, key in keys.items() if (told := info.features[name]).names}
    own = {"names": {key: each for key, each in names.items() if info.features[_of(keys, key)].dtype not in MOVING}}
    facts: dict[str, Any] = {
        **({} if record is not None else {**own, "lerobot": info.version}),
        **({"robot_type": info.robot} if info.robot else {}),
        "tasks": texts,
        **(record.provenance if record is not None else {}),
        "control_hz": info.fps,
    }
    return Reading(_episodes(opened, listed), info.num_frames, facts, tuple(_columns(opened)), len(listed))


def _recorded(root: Path) -> tuple[Record | None, dict[str, tuple[str, int, int]]]:
    """Returns our record, and where each key lies."""
    path = root / layout.RECORD
    if not path.is_file():
        return None, {}
    try:
        text = path.read_text(encoding="utf-8")
        record = Record.from_json(text, str(path))
        places = {
            str(key): (str(name), int(start), int(stop))
            for key, (name, start, stop) in parsed(text, str(path))["places"].items()
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DiffusionPolicyError):
            raise
        raise DataError(f"{path}: damaged ({error!r}); delete it to read the data as LeRobot's") from error
    return record, places


def _keys(info: Info, num_tasks: int, source: str) -> dict[str, str]:
    """Returns {feature: key} of those that are kept."""
    found: dict[str, str] = {}
    for name, told in sorted(info.features.items(), key=lambda each: each[1].dtype in MOVING):
        kept = told.dtype != "string" and (name not in _COUNTERS or (name == layout.TASK and num_tasks > 1))
        if not kept:
            continue
        key = layout.here(name)
        if key in found.values():  # observation.images.state beside observation.state
            key = name.replace(".", "_")
        if key in found.values():
            raise DataError(f"{source}: '{name}' and '{_of(found, key)}' would both be called '{key}'; rename one")
        found[name] = key
    if layout.DONE in found:
        own = {layout.here(f"next.{key}") for key in ("terminated", "truncated")} & set(found.values())
        if own:
            del found[layout.DONE]
        else:
            found[layout.DONE] = "terminated"
    return found


def _of(keys: Mapping[str, str], key: str) -> str:
    return next(name for name, each in keys.items() if each == key)


def _columns(source: _Source) -> Iterator[Column]:
    """Yields what becomes of each feature."""
    placed: dict[str, list[str]] = {}
    for key, (name, _, _) in source.places.items():
        placed.setdefault(name, []).append(key)
    for name, told in source.info.features.items():
        keys = placed.get(name) or ([source.keys[name]] if name in source.keys else [])
        if not keys:
            note = "made for LeRobot" if name in _COUNTERS or source.record is not None else ""
            note = "text" if told.dtype == "string" else note or "terminated and truncated are told apart beside it"
            yield Column(name, told.dtype, told.shape, None, note)
        for key in keys:
            note = {"video": "decoded; its codec has lost something"}.get(told.dtype, "")
            if source.record is None and name == layout.DONE:
                note = "of the last step, if successful; truncated otherwise"
            elif source.record is None and told.dtype not in MOVING:
                note = narrowed(np.dtype(told.dtype))
            yield Column(name, told.dtype, told.shape, key, note)


def _episodes(source: _Source, listed: Sequence[index.Listed]) -> Iterator[Episode]:
    """Yields the episodes; a data file, and a video of each camera, are open at a time."""
    info = source.info
    told = {name: info.features[name] for name in source.features if name in info.features}
    missing = [name for name in source.features if name not in told]
    if missing:
        raise DataError(f"{source.root}: expected '{missing[0]}' as our record says, but it is gone; delete the record")
    moving = {name: each for name, each in told.items() if each.dtype == "video"}
    names = [name for name in told if name not in moving]
    names += [name for name in ("timestamp", "episode_index") if name not in names]
    large = any(each.dtype == "image" for each in told.values())
    cameras = {name: Camera(info.fps, each.size) for name, each in moving.items()}
    paths = index.data_files(source.root, info, listed)
    begin = 0
    with ExitStack() as stack:
        rows = stack.enter_context(arrays.Rows(paths, names, str(source.root), large=large))
        following = stack.enter_context(Following(source.root))
        for camera in cameras.values():
            stack.callback(camera.close)
        for each in listed:
            where = f"{source.root}: episode {each.index}"
            table = rows.take(each.length)
            _check_counters(table, each, info.fps, where)
            found = _found(table, told, where)
            for name, camera in cameras.items():
                path, start = each.videos[name]
                found[name] = camera.read(source.root / path, start, each.length)
            yield _episode(source, found, following, begin, where)
            begin += each.length


def _found(table: Any, told: Mapping[str, Told], where: str) -> dict[str, NDArray[Any]]:
    """Returns the features of an episode that lie in the data file."""
    found: dict[str, NDArray[Any]] = {}
    for name, each in told.items():
        if each.dtype == "image":
            found[name] = arrays.pictures(table[name], each, f"{where}: '{name}'")
        elif each.dtype != "video":
            found[name] = arrays.numbers(table[name], each, f"{where}: '{name}'")
    return found


def _check_counters(table: Any, each: index.Listed, fps: float, where: str) -> None:
    """Raises DataError unless the rows are of this episode, at the rate of the data set."""
    single = Told("int64", (1,))
    numbers = arrays.numbers(table["episode_index"], single, f"{where}: 'episode_index'")
    if (numbers != each.index).any():
        raise DataError(f"{where}: expected {each.length} rows of it, but some are of others; copy the data set again")
    times = arrays.numbers(table["timestamp"], Told("float32", (1,)), f"{where}: 'timestamp'").ravel()
    span = float(times[-1]) - float(times[0])
    rate = (len(times) - 1) / span if span > 0 else 0.0
    if len(times) > 1 and abs(rate - fps) > _RATE_SLACK * fps:
        raise DataError(
            f"{where}: its time stamps run at {rate:.3g} frames a second, but info.json says {fps:g}; expected one "
            f"rate, resample it or leave it out"
        )
    steps = np.diff(times.astype(np.float64)) * fps
    if (wrong := np.flatnonzero(np.abs(steps - 1) > _GAP)).size:
        logger.warning(
            "%s: its time stamps jump by %.3g steps after frame %d (%d such jumps); frames are taken as if they "
            "followed each other evenly", where, steps[wrong[0]], wrong[0], wrong.size,
        )  # fmt: skip


def _episode(
    source: _Source, found: Mapping[str, NDArray[Any]], following: Following, begin: int, where: str
) -> Episode:
    if source.record is None:
        return _translated(source.keys, found, where)
    placed: Episode = {}
    for key, (name, start, stop) in source.places.items():
        whole = source.info.features[name].dtype in MOVING
        placed[key] = found[name] if whole else found[name].reshape(len(found[name]), -1)[:, start:stop]
    placed |= following.read(begin, placed, source.record.forms, where)
    return source.record.restored(placed, where)


def _translated(keys: Mapping[str, str], found: Mapping[str, NDArray[Any]], where: str) -> Episode:
    """Returns an episode by the rule."""
    episode: Episode = {}
    for name, key in keys.items():
        values = found[name] if found[name].dtype == np.uint8 else stored(found[name], name, where)
        scalar = values.shape[1:] == (1,) and (name.startswith("next.") or name == layout.TASK)
        episode[key] = values[:, 0] if scalar else values
    if layout.DONE in keys:
        last = np.arange(len(episode["terminated"])) == len(episode["terminated"]) - 1
        done = flags(found[layout.DONE], layout.DONE, where)
        won = flags(found["next.success"], "next.success", where) if "next.success" in keys else np.ones_like(done)
        ended = bool(done[-1] and won[-1])
        episode |= {"terminated": last & ended, "truncated": last & (not ended)}
    for key in {"terminated", "truncated"} & set(episode):
        episode[key] = flags(episode[key], key, where)
    return episode


def _recognizes(source: str) -> bool:
    return (Path(source) / layout.INFO).is_file()


FORMATS.register("lerobot")(Format("LeRobot's data sets, v3.0 and v2", _recognizes, read_lerobot))
