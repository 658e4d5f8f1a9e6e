"""What stands in meta/ of a LeRobot data set beside the table of episodes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.data.formats.lerobot import layout
from diffusion_policy.data.formats.lerobot.features import Feature
from diffusion_policy.data.formats.lerobot.stats import Stats
from diffusion_policy.data.formats.record import Record
from diffusion_policy.data.formats.writing import Content
from diffusion_policy.errors import ConfigError, DataError

_VERSION = "v3.0"
_INDEX = "__index_level_0__"  # pandas' name of an index that has none


def tasks(content: Content, told: str | None) -> list[str]:
    """Returns the texts of the tasks; those that `task_index` counts where the data have it.

    Raises:
        ConfigError: `told` is of no use.
        DataError: the data count texts that the provenance does not have.
    """
    known = content.facts.get("tasks")
    texts = [str(text) for text in known] if isinstance(known, (list, tuple)) else []
    form = content.forms.get(layout.TASK)
    if form is not None:
        if told is not None:
            raise ConfigError(f"{content.where}: --task is of no use for data with '{layout.TASK}'; leave it out")
        if form[1].kind not in "iu" or int(np.prod(form[0])) != 1 or not texts or len(set(texts)) != len(texts):
            raise DataError(
                f"{content.where}: '{layout.TASK}' must count the distinct texts of the provenance's 'tasks', but is "
                f"{form[1]} of shape {form[0]} for {len(texts)} texts; leave it out"
            )
        return texts
    if told is not None:
        return [told]
    single = content.facts.get("task") or content.facts.get("env_id") or "demonstrations"
    return texts if len(texts) == 1 else [str(single)]


def write_info(
    content: Content, features: Sequence[Feature], tasks: Sequence[str], counts: tuple[int, int], root: Path
) -> None:
    """Writes info.json.

    Args:
        content: that was written.
        features: what the keys became.
        tasks: their texts.
        counts: episodes and frames.
        root: the folder.
    """
    names, fps = content.facts.get("names"), content.control_hz or 1.0
    known = names if isinstance(names, Mapping) else {}
    single = {"shape": [1], "names": None}
    told = {
        "codebase_version": _VERSION,
        "robot_type": content.facts.get("robot_type"),
        "total_episodes": counts[0],
        "total_frames": counts[1],
        "total_tasks": len(tasks),
        "chunks_size": layout.FILES_PER_CHUNK,
        "data_files_size_in_mb": layout.FILE_MB,
        "video_files_size_in_mb": 2 * layout.FILE_MB,
        "fps": int(fps) if fps == int(fps) else fps,
        "splits": {"train": f"0:{counts[0]}"},
        "data_path": layout.DATA,
        "video_path": None,
        "features": {
            **{feature.name: feature.told(known) for feature in features},
            **{name: {"dtype": dtype, **single} for name, dtype in layout.MADE.items()},
            layout.TASK: {"dtype": "int64", **single},
        },
    }
    _write_json(told, root / layout.INFO)


def write_stats(stats: Mapping[str, Stats], root: Path) -> None:
    """Writes the statistics of the data set."""
    told = {name: {kind: values.tolist() for kind, values in each.items()} for name, each in stats.items()}
    _write_json(told, root / layout.STATS)


def write_tasks(texts: Sequence[str], root: Path) -> None:
    """Writes the texts as pandas writes a table that they are the index of."""
    pyarrow = layout.library(str(root))
    columns = ((layout.TASK, layout.TASK, "int64", "int64"), (None, _INDEX, "unicode", "object"))
    told = {
        "index_columns": [_INDEX],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
            for name, field, kind, dtype in columns
        ],
    }
    table = pyarrow.table({layout.TASK: np.arange(len(texts)), _INDEX: list(texts)})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(told)}), root / layout.TASKS)


def write_record(content: Content, features: Sequence[Feature], root: Path) -> None:
    """Writes what our keys were, and where they lie."""
    places = {key: [name, *span] for key, name, span in _places(content, features)}
    _write_json(json.loads(Record.of(content).to_json()) | {"places": places}, root / layout.RECORD)


def _places(content: Content, features: Sequence[Feature]) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Yields key, feature, and the span of its numbers."""
    for feature in features:
        start = 0
        for key, size in zip(feature.keys, feature.sizes, strict=True):
            yield key, feature.name, (start, start + size)
            start += size
    if layout.TASK in content.forms:
        yield layout.TASK, layout.TASK, (0, 1)


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")
