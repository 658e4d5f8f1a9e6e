"""A data set of another format, written as ours in one step when it is complete."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusion_policy.data import store
from diffusion_policy.data.formats import d4rl, minari, ogbench  # noqa: F401 (they register themselves)
from diffusion_policy.data.formats.reading import BLOCK_BYTES, FORMATS, Episode, Reading
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, MissingFileError
from diffusion_policy.versions import installed_versions

_SEVERAL = 1000  # episodes in one write, at most


def guess_format(source: str) -> str:
    """Returns the name of the format that a source looks like, by its suffix or content.

    Raises:
        MissingFileError: there is nothing that could look like one.
        ConfigError: it looks like none; lists the known ones.
    """
    for name in FORMATS:
        if FORMATS.get(name).recognizes(source):
            return name
    if not Path(source).exists():
        raise MissingFileError(f"{source} does not exist; give a data set of another format")
    known = ", ".join(f"{name} ({FORMATS.get(name).what})" for name in FORMATS)
    raise ConfigError(f"{source} looks like none of the known formats; say which with --format: {known}")


def open_source(source: str, name: str | None = None, *, max_episode_steps: int | None = None) -> Reading:
    """Returns what a source holds.

    Args:
        source: a path, or an id that its format knows.
        name: of the format; None to guess.
        max_episode_steps: time limit of the episodes, where the source does not tell their ends.

    Raises:
        MissingFileError: there is nothing.
        DataError: it is damaged or lacks something.
        ConfigError: the format is unknown, or its library is missing.
    """
    return FORMATS.get(name or guess_format(source)).read(source, max_episode_steps=max_episode_steps)


def convert(
    source: str,
    out: str | Path,
    *,
    name: str | None = None,
    max_episode_steps: int | None = None,
    facts: Mapping[str, Any] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_steps: Callable[[int], None] | None = None,
) -> ReplayBuffer:
    """Writes a data set of another format as ours; returns it, opened for reading.

    Args:
        source: a path, or an id that its format knows.
        out: the zarr folder to make, or one file if it ends in .zip. After any failure there is nothing.
        name: of the format; None to guess.
        max_episode_steps: time limit of the episodes, where the source does not tell their ends.
        facts: what is known beside the source, for the provenance: env_id, action_bounds.
        on_start: called with the number of steps to come, for a progress bar.
        on_steps: called with the steps of each write.

    Raises:
        OutputExistsError: `out` exists.
        MissingFileError: there is no source.
        DataError: the source is damaged, lacks something, or holds what a data set must not, such as NaN.
        ConfigError: the format is unknown, or its library is missing.
        StorageError: writing failed.
    """
    out, name = Path(out), name or guess_format(source)
    reading = open_source(source, name, max_episode_steps=max_episode_steps)
    provenance = {
        "converted_from": {"format": name, "source": Path(source).name},
        **({"kwargs": {}} if facts and "env_id" in facts else {}),  # unless the source tells some
        **reading.facts,
        **(facts or {}),
        "versions": installed_versions(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    if on_start is not None:
        on_start(reading.num_steps)
    with (
        store.storage_errors(str(out)),
        store.replaceable(out, overwrite=False),
        store.staging_folder(out) as staging,
    ):
        built = staging / "zarr"
        with ReplayBuffer.create(built, attrs={"provenance": provenance}) as buffer:
            buffer.location = source  # what messages about its episodes are about
            for episodes in _together(reading.episodes):
                buffer.add_episodes(episodes)
                if on_steps is not None:
                    on_steps(sum(len(episode["action"]) for episode in episodes))
            if not buffer.num_episodes:
                raise DataError(f"{source}: expected episodes with steps, but there are none; get the data set again")
        if out.suffix == ".zip":
            store.pack_zip(built, staging / "zip")
            built = staging / "zip"
        store.replace(out, built)
    return ReplayBuffer.open(out)


def _together(episodes: Iterator[Episode]) -> Iterator[list[Episode]]:
    """Yields episodes in lists that are worth a write each."""
    waiting: list[Episode] = []
    size = 0
    for episode in episodes:
        waiting.append(episode)
        size += sum(values.nbytes for values in episode.values())
        if size >= BLOCK_BYTES or len(waiting) >= _SEVERAL:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting
