"""What is called what in LeRobot's data sets, and pyarrow, by which they are read and written.

    meta/info.json                                  fps, features {name: dtype, shape, names}, paths, totals
    meta/tasks.parquet                              task_index, and the text as the index of a pandas table
    meta/episodes/chunk-000/file-000.parquet        a row per episode: length, its data and video files, statistics
    meta/stats.json                                 {feature: min, max, mean, std, count, q01 ... q99}
    data/chunk-000/file-000.parquet                 a row per frame, whole episodes one after another
    videos/<feature>/chunk-000/file-000.mp4         whole episodes one after another

In v2.1 `meta` holds tasks.jsonl and episodes.jsonl, and every episode is a file data/chunk-000/episode_000000.parquet
(videos/chunk-000/<feature>/episode_000000.mp4).

    theirs                      ours              theirs                 ours
    action                      action            next.reward            reward
    observation.images.front    front             next.success           success
    observation.state           state             next.terminated        terminated
    observation.<other>         <other>           next.truncated         truncated
                                                  next.<other>           next_<other>

What of ours becomes `observation.state` (the only vector, beside `observation.environment_state`, that LeRobot's
policies read) is chosen with --state and --environment-state; `features` says what without them. Of what we write, a
record in meta/ tells how our keys were called and formed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.data.formats.record import NAME
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError, DiffusionPolicyError, MissingFileError

INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OLD_TASKS, OLD_EPISODES = "meta/tasks.jsonl", "meta/episodes.jsonl"
RECORD = f"meta/{NAME}.json"
FOLLOWING = f"meta/{NAME}_next.parquet"
"""Pictures of ours that LeRobot has no place for: what was seen after a step, where the next frame shows another."""

FILES_PER_CHUNK = 1000
FILE_MB = 100  # LeRobot's own limit for a parquet file

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
IMAGES = "observation.images."
DONE = "next.done"
MADE = {DONE: "bool", "timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
"""What is of no key of ours, {feature: dtype}."""
TASK = "task_index"
_OBSERVATION = "observation."
_FOLLOWS = "next."
_THERE = {
    "action": "action",
    "reward": "next.reward",
    "success": "next.success",
    "terminated": "next.terminated",
    "truncated": "next.truncated",
    TASK: TASK,
}
_HERE = {name: key for key, name in _THERE.items()}

Form = tuple[tuple[int, ...], np.dtype[Any]]


def there(key: str, form: Form, forms: Mapping[str, Form]) -> str:
    """Returns the name of the feature that a key of ours becomes, state vectors aside."""
    if key in _THERE:
        return _THERE[key]
    if key.startswith(NEXT) and key.removeprefix(NEXT) in forms:
        return _FOLLOWS + key.removeprefix(NEXT)
    return (IMAGES if is_rgb(form) else _OBSERVATION) + key


def here(name: str) -> str:
    """Returns the key that a feature becomes, if no other is called so."""
    if name in _HERE:
        return _HERE[name]
    for prefix, ours in ((IMAGES, ""), (_OBSERVATION, ""), (_FOLLOWS, NEXT)):
        if name.startswith(prefix) and name != prefix:
            return ours + name.removeprefix(prefix)
    return name


def is_rgb(form: Form) -> bool:
    """Returns whether a key holds what LeRobot calls an image: (height, width, 3), 0-255."""
    from diffusion_policy.data.formats.writing import is_picture

    return is_picture(form) and form[0][2] == 3


def library(where: str) -> Any:
    """Returns pyarrow, its `parquet` loaded.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{where}: LeRobot's data sets need pyarrow, which is missing: pip install 'diffusion-policy[lerobot]'"
        ) from error
    return pyarrow


@contextmanager
def parquet(path: Path) -> Iterator[Any]:
    """Gives a parquet file, opened for reading.

    Raises:
        MissingFileError: there is no such file.
        DataError: now or while it is read: it is damaged.
    """
    pyarrow = library(str(path))
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; the data set is incomplete, copy it again")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as error:  # pyarrow says of damaged files, at any read
        if isinstance(error, DiffusionPolicyError):
            raise
        raise DataError(f"{path}: damaged or no parquet ({' '.join(str(error).split())}); copy it again") from error
