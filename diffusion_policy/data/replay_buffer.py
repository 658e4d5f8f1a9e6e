"""Episodes of demonstrations as zarr: `data/<key>` (N, *shape), `meta/episode_ends` (M,) exclusive, cumulative.

Letters: N steps of all episodes, M episodes, T steps of one. This is the layout of the field's data sets (Chi et
al. 2023 and its many users); it is written as zarr format 2, which all of their tools read; 2 and 3 are read.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from diffusion_policy.data import store
from diffusion_policy.data.episode_reader import BLOCK_BYTES, EpisodeReader
from diffusion_policy.data.incoming import checked_episode
from diffusion_policy.data.layout import Layout
from diffusion_policy.data.remote import remote_group
from diffusion_policy.errors import DataError
from diffusion_policy.locks import FolderLock
from diffusion_policy.paths import is_remote, local_path


class ReplayBuffer(EpisodeReader):
    """Episodes, appended one by one and read key by key; made by `create` or `open`.

    A writer that is killed loses the episode it was writing and nothing else (`layout` says why).

    Args:
        layout: the opened arrays.
        writable: whether `add_episode` and `update_attrs` are allowed.
        held: what ends with the buffer: an open .zip, a writer's lock.
    """

    def __init__(self, layout: Layout, *, writable: bool, held: ExitStack | None = None) -> None:
        super().__init__(layout)
        self._writable = writable
        self._held = held or ExitStack()

    @classmethod
    def create(
        cls,
        path: str | Path | None = None,
        *,
        attrs: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        zarr_format: store.ZarrFormat = 2,
    ) -> "ReplayBuffer":
        """Returns an empty buffer to append to.

        Args:
            path: a folder that does not exist yet; None keeps everything in memory.
            attrs: plain values to keep with the data: provenance, renderer.
            overwrite: replace a zarr that is there.
            zarr_format: 2 is what the field's tools read.

        Raises:
            OutputExistsError: `path` exists, or is being written.
            StorageError: it cannot be written.
        """
        if path is None:
            layout = Layout.create(store.memory_group(zarr_format), "replay buffer in memory", attrs or {})
            return cls(layout, writable=True)
        path = local_path(path, "path")
        with ExitStack() as held:
            group, lock = store.create_group(path, overwrite=overwrite, zarr_format=zarr_format)
            held.enter_context(lock)
            with store.storage_errors(str(path)):
                layout = Layout.create(group, str(path), attrs or {})
            return cls(layout, writable=True, held=held.pop_all())

    @classmethod
    def open(cls, path: str | Path, mode: Literal["r", "a"] = "r") -> "ReplayBuffer":
        """Returns the buffer at `path`: a zarr folder or a .zip of one, format 2 or 3.

        An append that was interrupted is hidden in mode "r" and removed from the disk in mode "a". An address that
        fsspec reads, http://HOST/demos.zarr, will do as well in mode "r".

        Raises:
            MissingFileError: nothing is there.
            DataError: it is no zarr, has no episodes, or its parts contradict each other.
            OutputExistsError: mode "a", and somebody else is writing to it.
            ConfigError: mode "a" of an address, or one that nobody can read.
            RemoteError: an address cannot be reached.
        """
        if mode == "r" and is_remote(path):
            with ExitStack() as held:
                layout = Layout(held.enter_context(remote_group(str(path))), str(path))
                return cls(layout, writable=False, held=held.pop_all())
        path = local_path(path, "path") if mode == "a" else Path(path)
        with ExitStack() as held:
            group, archive = store.open_group(path, mode)
            if archive is not None:
                held.callback(archive.close)
            if mode == "a":  # before anything is read: another writer may be between two arrays
                held.enter_context(FolderLock(path, "data set"))
            layout = Layout(group, str(path))
            if mode == "a":
                with store.storage_errors(str(path)):
                    store.remove_partial_writes(path)
                    layout.truncate()
            return cls(layout, writable=mode == "a", held=held.pop_all())

    def add_episode(self, episode: Mapping[str, Any]) -> None:
        """Appends one episode; afterwards it is there as a whole, or, after any failure, not at all.

        Args:
            episode: {key: (T, *shape)} numbers, T >= 1; keys, shapes and dtypes as in the episodes before.

        Raises:
            DataError: the arrays do not fit together or the earlier episodes, or are not finite.
            StorageError: writing failed (a full disk); what was there before is intact.
        """
        self.add_episodes([episode])

    def add_episodes(self, episodes: Sequence[Mapping[str, Any]]) -> None:
        """Appends episodes in their order, much faster than one by one where they are short.

        Args:
            episodes: as for `add_episode`; any number.

        Raises:
            DataError: as for `add_episode`, of any of them; then none was written.
            StorageError: writing failed (a full disk); a first part of them may be there, whole ones.
        """
        self._require_writable()
        known = {key: (self.shape(key), self.dtype(key)) for key in self.keys()}
        checked = []
        for episode in episodes:
            checked.append(checked_episode(episode, known, self.location))
            known = known or {key: (values.shape[1:], values.dtype) for key, values in checked[0].items()}
        with store.storage_errors(self.location):
            self._layout.append(checked)
        self._digests.clear()

    def update_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Adds or replaces attributes; values are plain (numbers, strings, lists, dicts).

        Raises:
            DataError: the buffer was opened for reading.
            StorageError: writing failed.
        """
        self._require_writable()
        with store.storage_errors(self.location):
            self._layout.group.attrs.update(dict(attrs))

    def save(self, path: str | Path, *, keys: Sequence[str] | None = None, overwrite: bool = False) -> None:
        """Writes a copy as a folder, or as one file if `path` ends in .zip (equal content gives equal bytes).

        The copy appears in one step when it is complete.

        Args:
            path: where to; must not exist unless `overwrite`.
            keys: copy only these.
            overwrite: replace a zarr that is there.

        Raises:
            DataError: no such key.
            OutputExistsError: `path` exists, or is being written.
            StorageError: writing failed; nothing is left behind.
        """
        path = local_path(path, "path")
        wanted = self.keys() if keys is None else sorted(set(keys))
        self.step_bytes(wanted)  # an unknown key is refused before anything is written
        with (
            store.storage_errors(str(path)),
            store.replaceable(path, overwrite=overwrite),
            store.staging_folder(path) as staging,
        ):
            built = staging / "zarr"
            with ReplayBuffer.create(built, attrs=self.attrs) as copy:
                self._copy_to(copy._layout, wanted)
            if path.suffix == ".zip":
                store.pack_zip(built, staging / "zip")
                built = staging / "zip"
            store.replace(path, built)

    def close(self) -> None:
        """Closes an archive, from which nothing more can be read then, and lets others write to a folder."""
        self._writable = False
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _copy_to(self, target: Layout, keys: Sequence[str]) -> None:
        for key in keys:
            array = target.add_column(key, (self.num_steps, *self.shape(key)), self.dtype(key))
            chunk = array.chunks[0]
            block = chunk * max(1, BLOCK_BYTES // max(1, chunk * self.step_bytes([key])))
            for start in range(0, self.num_steps, block):
                stop = min(start + block, self.num_steps)
                array[start:stop] = self.read(key, start, stop)
        stored = self.stored_digests() if list(keys) == self.keys() else None
        target.finish(self.episode_ends, self.computed_digests(keys) if stored is None else stored)

    def _require_writable(self) -> None:
        if not self._writable:
            raise DataError(f"{self.location}: opened for reading or closed, cannot be changed; open it with mode='a'")
