"""Our episodes as a LeRobotDataset v3.0 with `image` features, which LeRobot opens and trains from; `layout` says how.

LeRobot's own way to keep pictures is video, which changes them; PNG in the data files keeps them as they are. Beside
its files lie two of ours in meta/, at which LeRobot does not look: a record of the keys' forms and places, so that
they come back as they are, and the pictures that were seen after a step where no frame shows them.

Letters: M episodes, T steps of an episode.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.streams import LOW_DIM_SIZE
from diffusion_policy.data.formats.lerobot import describing, frames, layout, stats
from diffusion_policy.data.formats.lerobot.features import IMAGE, Feature, columns, features, follows
from diffusion_policy.data.formats.lerobot.files import Files
from diffusion_policy.data.formats.reading import Column, Episode, Option
from diffusion_policy.data.formats.writing import TARGETS, Content, Target, whole_pictures
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

TASK = Option("task", "TEXT", "what the robot is told to do")
STATE = Option("state", "KEYS", "keys for observation.state, e.g. eef_pos,gripper")
ENVIRONMENT = Option("environment_state", "KEYS", "keys for observation.environment_state")
_THREADS = 2  # that encode pictures
_ROWS = 50  # of the table of episodes, written at once


def plan_lerobot(
    content: Content, *, task: str | None = None, state: str | None = None, environment_state: str | None = None
) -> Sequence[Column]:
    """Returns which feature each key becomes.

    Args:
        content: to be written.
        task: in words; without it what the provenance says, or the environment's id.
        state: keys, comma-separated, for `observation.state`; `features` says which without it.
        environment_state: likewise.

    Raises:
        DataError: there is no `action`, or a key has no room.
        ConfigError: pyarrow is missing, nobody said the rate, or an option names what is not there.
    """
    layout.library(content.where)
    if "action" not in content.forms:
        raise DataError(
            f"{content.where}: LeRobot's data sets need actions, but there is no 'action' in {', '.join(content.forms)}"
        )
    if content.control_hz is None:
        raise ConfigError(f"{content.where}: LeRobot must know the frames a second; say them with --control-hz")
    describing.tasks(content, task)
    return columns(features(content.forms, state, environment_state, content.where), content.forms)


def write_lerobot(
    content: Content,
    built: Path,
    *,
    task: str | None = None,
    state: str | None = None,
    environment_state: str | None = None,
) -> None:
    """Writes the folder; arguments are those of `plan_lerobot`.

    Raises:
        DataError: pictures hold something else than whole numbers 0-255.
        StorageError: writing failed.
    """
    found = features(content.forms, state, environment_state, content.where)
    with _Writer(content, built, found, describing.tasks(content, task)) as writer:
        for episode in content.episodes:
            writer.add(episode)
    writer.finish()


class _Writer:
    """A data set in the making.

    Args:
        content: whose episodes come by `add`.
        root: the folder.
        features: what the keys become.
        tasks: their texts.
    """

    def __init__(self, content: Content, root: Path, features: Sequence[Feature], tasks: Sequence[str]) -> None:
        self._content, self._root, self._features, self._tasks = content, root, features, tasks
        self._fps = content.control_hz or 1.0
        self._pyarrow = layout.library(content.where)
        self._schema = frames.schema(self._pyarrow, features)
        self._total = stats.Total()
        self._rows: list[dict[str, Any]] = []
        self._episodes = self._steps = 0
        self._following = [key for key in content.forms if follows(key, content.forms)]
        self._stack = ExitStack()
        self._meta: Files | None = None

    def __enter__(self) -> "_Writer":
        pictures = [feature.name for feature in self._features if feature.dtype == IMAGE]
        self._data = self._stack.enter_context(Files(self._root, layout.DATA, self._schema, pictures))
        fields = [(key, frames.pictures_type(self._pyarrow)) for key in self._following]
        beside = self._pyarrow.schema([("index", self._pyarrow.int64()), *fields])
        self._beside = self._stack.enter_context(Files(self._root, layout.FOLLOWING, beside, self._following))
        self._pool = self._stack.enter_context(ThreadPoolExecutor(_THREADS))
        return self

    def __exit__(self, *failure: Any) -> None:
        with self._stack:
            if failure[0] is None:
                self._flush()

    def add(self, episode: Episode) -> None:
        """Writes one more episode."""
        where = f"{self._content.where}: episode {self._episodes}"
        steps = len(episode["action"])
        found: dict[str, Any] = {}
        told: dict[str, stats.Stats] = {}
        for feature in self._features:
            if feature.dtype == IMAGE:
                key = feature.keys[0]
                pictures = whole_pictures(episode[key], f"{where}: '{key}'")
                found[feature.name] = frames.pictures_column(self._pyarrow, self._pool.map(frames.encoded, pictures))
                told[feature.name] = stats.of_pictures(pictures)
            else:
                numbers = frames.joined(episode, feature)
                found[feature.name] = frames.numbers_column(self._pyarrow, numbers)
                small = numbers.shape[1] <= LOW_DIM_SIZE
                told[feature.name] = stats.of_numbers(numbers) if small else stats.of_many(numbers)
        counted = self._counted(episode, steps, where)
        for name, values in counted.items():
            found[name] = frames.numbers_column(self._pyarrow, values[:, None])
            told[name] = stats.of_numbers(values[:, None])
        table = self._pyarrow.table([found[name] for name in self._schema.names], schema=self._schema)
        chunk, number = self._data.place(table.nbytes)
        self._data.write(table)
        self._note(steps, sorted(set(counted[layout.TASK].tolist())), (chunk, number), told)
        self._keep_following(episode, where)
        self._episodes += 1
        self._steps += steps

    def _counted(self, episode: Episode, steps: int, where: str) -> dict[str, NDArray[Any]]:
        """Returns LeRobot's own columns (T,)."""
        t = np.arange(steps)
        task = episode.get(layout.TASK, np.zeros(steps, np.int64)).reshape(steps).astype(np.int64)
        if not (0 <= task.min() <= task.max() < len(self._tasks)):
            raise DataError(f"{where}: '{layout.TASK}' must be in [0, {len(self._tasks) - 1}], got {task.max()}")
        ends = [episode[key].reshape(steps, -1).any(axis=1) for key in ("terminated", "truncated") if key in episode]
        return {
            layout.DONE: np.logical_or.reduce(ends) if ends else t == steps - 1,
            "timestamp": (t / self._fps).astype(np.float32),
            "frame_index": t,
            "episode_index": np.full(steps, self._episodes),
            "index": self._steps + t,
            layout.TASK: task,
        }

    def _note(self, steps: int, tasks: Sequence[int], place: tuple[int, int], told: Mapping[str, stats.Stats]) -> None:
        """Notes the episode's row in meta/."""
        self._total.add(told)
        self._rows.append(
            {
                "episode_index": self._episodes,
                "tasks": [self._tasks[i] for i in tasks],
                "length": steps,
                "data/chunk_index": place[0],
                "data/file_index": place[1],
                "dataset_from_index": self._steps,
                "dataset_to_index": self._steps + steps,
                **{
                    f"stats/{name}/{kind}": values.tolist()
                    for name, each in told.items()
                    for kind, values in each.items()
                },
            }
        )
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = self._pyarrow.Table.from_pylist(self._rows)
        place = (0, 0) if self._meta is None else self._meta.place(table.nbytes)
        for name, value in zip(("chunk_index", "file_index"), place, strict=True):
            filled = self._pyarrow.array(np.full(len(self._rows), value, np.int64))
            table = table.append_column(f"meta/episodes/{name}", filled)
        if self._meta is None:
            self._meta = self._stack.enter_context(Files(self._root, layout.EPISODES, table.schema))
        self._meta.write(table)
        self._rows.clear()

    def _keep_following(self, episode: Episode, where: str) -> None:
        """Writes, of what was seen after each step, what the next frame does not show; always the last."""
        found: dict[int, dict[str, bytes]] = {}
        for key in self._following:
            pictures = whole_pictures(episode[key], f"{where}: '{key}'")
            seen = whole_pictures(episode[key.removeprefix(NEXT)], where)
            other = (pictures[:-1] != seen[1:]).any(axis=(1, 2, 3))
            for i in np.flatnonzero(np.append(other, True)).tolist():
                found.setdefault(i, {})[key] = frames.encoded(pictures[i])
        if found:
            chosen = sorted(found)
            index = self._pyarrow.array(self._steps + np.array(chosen))
            shown = [
                frames.pictures_column(self._pyarrow, [found[i].get(key) for i in chosen]) for key in self._following
            ]
            self._beside.write(self._pyarrow.table([index, *shown], names=["index", *self._following]))

    def finish(self) -> None:
        """Writes what is known only in the end."""
        describing.write_stats(self._total.result(), self._root)
        describing.write_info(self._content, self._features, self._tasks, (self._episodes, self._steps), self._root)
        describing.write_tasks(self._tasks, self._root)
        describing.write_record(self._content, self._features, self._root)


TARGETS.register("lerobot")(
    Target("LeRobot's data sets v3.0", lambda out: False, plan_lerobot, write_lerobot, (TASK, STATE, ENVIRONMENT))
)
