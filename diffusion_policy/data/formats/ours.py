"""Our own data sets, zarr: to be written as another format, or copied with something changed."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diffusion_policy.data import store
from diffusion_policy.data.formats.reading import FORMATS, Column, Episode, Format, Reading
from diffusion_policy.data.formats.writing import TARGETS, Content, Target
from diffusion_policy.data.incoming import together
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import DataError


def read_zarr(source: str) -> Reading:
    """Returns the episodes of a zarr folder or a .zip of one, with all their keys as they are.

    Raises:
        MissingFileError: nothing is there.
        DataError: it is no such data set, or damaged.
    """
    with ExitStack() as held:
        buffer = held.enter_context(ReplayBuffer.open(source))
        if not buffer.num_episodes:
            raise DataError(f"{source}: expected episodes, but there are none; collect or convert some first")
        attrs = buffer.attrs
        told = attrs.pop("provenance", None)
        facts: dict[str, Any] = dict(told) if isinstance(told, dict) else {}
        if attrs:
            facts["attrs"] = {**attrs, **(facts.get("attrs") or {})}
        columns = tuple(
            Column(f"data/{key}", str(buffer.dtype(key)), buffer.shape(key), key)
            for key in buffer.keys()  # noqa: SIM118 - a buffer is not a dict
        )
        episodes = _episodes(buffer, held.pop_all())  # opened once: an archive elsewhere is fetched when it is opened
        return Reading(episodes, buffer.num_steps, facts, columns, buffer.num_episodes)


def _episodes(buffer: ReplayBuffer, held: ExitStack) -> Iterator[Episode]:
    with held:
        yield from buffer.episodes()


def plan_zarr(content: Content) -> Sequence[Column]:
    """Returns that every key keeps its name."""
    return [Column(key, str(dtype), shape, f"data/{key}") for key, (shape, dtype) in content.forms.items()]


def write_zarr(content: Content, built: Path) -> None:
    """Writes a zarr folder, or one file if `built` ends in .zip.

    Raises:
        StorageError: writing failed.
    """
    packed = built.suffix == ".zip"
    folder = built.with_name("zarr") if packed else built
    with ReplayBuffer.create(folder, attrs={"provenance": dict(content.facts)}) as buffer:
        buffer.location = content.where  # what messages about its episodes are about
        for episodes in together(content.episodes):
            buffer.add_episodes(episodes)
    if packed:
        store.pack_zip(folder, built)


def _recognizes(source: str) -> bool:
    path = Path(source)
    return path.exists() and (path.suffix in (".zarr", ".zip") or store.is_group(path))


FORMATS.register("zarr")(Format("our own data sets, zarr", _recognizes, read_zarr))
TARGETS.register("zarr")(
    Target("our own data sets, zarr", lambda out: out.suffix in (".zarr", ".zip"), plan_zarr, write_zarr)
)
