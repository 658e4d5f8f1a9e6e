"""Episodes of demonstrations as zarr: `data/<key>` (N, *shape), `meta/episode_ends` (M,) exclusive, cumulative.

Letters: N steps of all episodes, M episodes, T steps of one. This is the layout of the field's data sets (Chi et
al. 2023 and its many users); it is written as zarr format 2, which all of their tools read; 2 and 3 are read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data import store
from diffusion_policy.data.digest import GENESIS, chain
from diffusion_policy.data.episodes import Ends, spans
from diffusion_policy.data.incoming import checked_episode
from diffusion_policy.data.layout import Layout
from diffusion_policy.errors import DataError
from diffusion_policy.locks import FolderLock

_BLOCK_BYTES = 64 << 20


class ReplayBuffer:
    """Episodes, appended one by one and read key by key; made by `create` or `open`.

    Only what is asked for is read: an image key costs nothing until somebody reads it. A writer that is killed
    loses the episode it was writing and nothing else (`layout` says why).

    Args:
        layout: the opened arrays.
        writable: whether `add_episode` and `update_attrs` are allowed.
        held: what ends with the buffer: an open .zip, a writer's lock.
    """

    def __init__(self, layout: Layout, *, writable: bool, held: ExitStack | None = None) -> None:
        self.location = layout.where
        self._layout = layout
        self._writable = writable
        self._held = held or ExitStack()
        self._digests: dict[tuple[str, ...], str] = {}

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
        with ExitStack() as held:
            group, lock = store.create_group(Path(path), overwrite=overwrite, zarr_format=zarr_format)
            held.enter_context(lock)
            with store.storage_errors(str(path)):
                layout = Layout.create(group, str(path), attrs or {})
            return cls(layout, writable=True, held=held.pop_all())

    @classmethod
    def open(cls, path: str | Path, mode: Literal["r", "a"] = "r") -> "ReplayBuffer":
        """Returns the buffer at `path`: a zarr folder or a .zip of one, format 2 or 3.

        An append that was interrupted is hidden in mode "r" and removed from the disk in mode "a".

        Raises:
            MissingFileError: nothing is there.
            DataError: it is no zarr, has no episodes, or its parts contradict each other.
            OutputExistsError: mode "a", and somebody else is writing to it.
        """
        path = Path(path)
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

    def keys(self) -> list[str]:
        """Returns the names of the arrays, sorted; none before the first episode."""
        return sorted(self._layout.columns) if self.num_episodes else []

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __getitem__(self, key: str) -> NDArray[Any]:
        """Returns the whole of one key, (N, *shape); mind the size of images."""
        return self.read(key)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Returns steps [start, stop) of one key, (stop - start, *shape).

        Raises:
            DataError: no such key, a range outside [0, N], or a chunk that cannot be decoded.
        """
        stop = self.num_steps if stop is None else stop
        if not 0 <= start <= stop <= self.num_steps:
            raise DataError(f"{self.location}: expected steps within [0, {self.num_steps}], but got [{start}, {stop})")
        return store.read(self._column(key), self.location, start, stop)

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns the shape of one step of a key."""
        return tuple(self._column(key).shape[1:])

    def dtype(self, key: str) -> np.dtype[Any]:
        """Returns the dtype of a key."""
        return np.dtype(self._column(key).dtype)

    def step_bytes(self, keys: Sequence[str]) -> int:
        """Returns the bytes of one step of the given keys together, in memory."""
        return sum(self.dtype(key).itemsize * int(np.prod(self.shape(key), dtype=np.int64)) for key in keys)

    @property
    def episode_ends(self) -> Ends:
        """(M,) exclusive, cumulative ends of the episodes, int64."""
        return self._layout.ends.copy()

    @property
    def num_episodes(self) -> int:
        """M."""
        return len(self._layout.ends)

    @property
    def num_steps(self) -> int:
        """N."""
        return self._layout.num_steps

    @property
    def hidden_steps(self) -> int:
        """Steps behind the last whole episode, left by an interrupted append; 0 after opening with mode "a"."""
        longest = max((array.shape[0] for array in self._layout.columns.values()), default=0)
        return int(longest) - self.num_steps

    @property
    def attrs(self) -> dict[str, Any]:
        """What was kept with the data: provenance, renderer; a copy, see `update_attrs`."""
        return dict(self._layout.group.attrs.asdict())

    def update_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Adds or replaces attributes; values are plain (numbers, strings, lists, dicts).

        Raises:
            DataError: the buffer was opened for reading.
            StorageError: writing failed.
        """
        self._require_writable()
        with store.storage_errors(self.location):
            self._layout.group.attrs.update(dict(attrs))

    def episode_slice(self, i: int) -> slice:
        """Returns the steps of episode i in [0, M).

        Raises:
            DataError: there is no such episode.
        """
        if not 0 <= i < self.num_episodes:
            raise DataError(f"{self.location}: expected an episode in [0, {self.num_episodes}), but got {i}")
        ends = self._layout.ends
        return slice(int(ends[i - 1]) if i else 0, int(ends[i]))

    def get_episode(self, i: int, keys: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Returns {key: (T, *shape)} of episode i, of all keys or of those named."""
        rows = self.episode_slice(i)
        return {key: self.read(key, rows.start, rows.stop) for key in (self.keys() if keys is None else keys)}

    def episodes(
        self, keys: Sequence[str] | None = None, *, block_bytes: int = _BLOCK_BYTES
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yields every episode as {key: (T, *shape)}; reads blocks of about `block_bytes`, so memory stays small."""
        wanted = self.keys() if keys is None else list(keys)
        for first, stop in spans(self._layout.ends, max(1, block_bytes // max(1, self.step_bytes(wanted)))):
            begin = self.episode_slice(first).start
            block = {key: self.read(key, begin, self.episode_slice(stop - 1).stop) for key in wanted}
            for i in range(first, stop):
                rows = self.episode_slice(i)
                yield {key: values[rows.start - begin : rows.stop - begin] for key, values in block.items()}

    def stored_digests(self) -> NDArray[np.uint8] | None:
        """Returns the digests that were written with the episodes, (M, 32), or None if there are none."""
        return self._layout.digests()

    def computed_digests(
        self, keys: Sequence[str] | None = None, *, on_episode: Callable[[int], None] | None = None
    ) -> NDArray[np.uint8]:
        """Returns the digests of what is on disk now, (M, 32).

        Args:
            keys: only these are read and count; None for all.
            on_episode: called with the steps of each episode done, for a progress bar.
        """
        last, rows = GENESIS, []
        for episode in self.episodes(keys):
            last = chain(last, episode)
            rows.append(np.frombuffer(last, np.uint8))
            if on_episode is not None:
                on_episode(len(next(iter(episode.values()), ())))
        return np.array(rows, np.uint8).reshape(-1, len(GENESIS))

    def digest(self, keys: Sequence[str] | None = None) -> str:
        """Returns the digest of all episodes in hex: the stored one for all keys, computed otherwise.

        Args:
            keys: only these are read and count; None for all.
        """
        wanted = tuple(sorted(self.keys() if keys is None else set(keys)))
        if wanted not in self._digests:
            last = self._layout.last_digest() if list(wanted) == self.keys() else None
            if last is None:
                digests = self.computed_digests(wanted)
                last = digests[-1].tobytes() if len(digests) else GENESIS
            self._digests[wanted] = last.hex()
        return self._digests[wanted]

    def verify(self) -> bool:
        """Reads everything and compares it with the stored digests; False where none are stored.

        Raises:
            DataError: names the first episode that is not what was written.
        """
        stored = self.stored_digests()
        if stored is None:
            return False
        wrong = np.flatnonzero((stored != self.computed_digests()).any(axis=1))
        if wrong.size:
            raise DataError(
                f"{self.location}: episode {wrong[0]} does not match the digest written with it: the data were "
                f"changed or damaged; copy the data set again"
            )
        return True

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
        path = Path(path)
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

    def __repr__(self) -> str:
        keys = ", ".join(f"{key} {self.dtype(key)}{list(self.shape(key))}" for key in self.keys())
        return f"ReplayBuffer({self.location}: {self.num_episodes} episodes, {self.num_steps} steps; {keys})"

    def _copy_to(self, target: Layout, keys: Sequence[str]) -> None:
        for key in keys:
            array = target.add_column(key, (self.num_steps, *self.shape(key)), self.dtype(key))
            chunk = array.chunks[0]
            block = chunk * max(1, _BLOCK_BYTES // max(1, chunk * self.step_bytes([key])))
            for start in range(0, self.num_steps, block):
                stop = min(start + block, self.num_steps)
                array[start:stop] = self.read(key, start, stop)
        stored = self.stored_digests() if list(keys) == self.keys() else None
        target.finish(self.episode_ends, self.computed_digests(keys) if stored is None else stored)

    def _column(self, key: str) -> store.Array:
        if key not in self:
            raise DataError(f"{self.location}: no data '{key}', it has: {', '.join(self.keys()) or 'nothing'}")
        return self._layout.columns[key]

    def _require_writable(self) -> None:
        if not self._writable:
            raise DataError(f"{self.location}: opened for reading or closed, cannot be changed; open it with mode='a'")
