"""The arrays of a data set on disk, the order in which they are written, and what a killed writer leaves.

    data/<key>              (N, *shape)  the steps
    meta/episode_ends       (M,) int64   exclusive, cumulative
    meta/episode_digests    (M, 32) uint8   chained, see `digest`; absent in other people's files

An append writes the data first and `episode_ends` last, and zarr replaces each chunk in one step (a rename). So
whatever moment the writer is killed at, the first ends[-1] steps of every array are whole episodes, and anything
behind them belongs to an append that never finished: it is never read, and removed before the next append.
This is about processes that die, not about power cuts: nothing is flushed to the platter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from diffusion_policy.data import store
from diffusion_policy.data.digest import DIGEST_BYTES, GENESIS, chain
from diffusion_policy.data.episodes import checked_ends, episode_at
from diffusion_policy.errors import DataError

_META_CHUNK = 1024  # entries of meta/*: the last chunk is rewritten at each append, so small


class Layout:
    """The opened arrays of one data set.

    Args:
        group: the opened zarr group.
        where: what to call it in messages.

    Raises:
        DataError: an array is missing, or the lengths contradict each other.
    """

    def __init__(self, group: zarr.Group, where: str) -> None:
        self.group = group
        self.where = where
        self._data = _sub_group(group, "data", where)
        meta = store.sub_arrays(_sub_group(group, "meta", where), where)
        if "episode_ends" not in meta:
            raise DataError(
                f"{where}: expected the array meta/episode_ends, but meta/ holds {', '.join(meta) or 'nothing'}; "
                f"write the exclusive cumulative ends of the episodes"
            )
        self._ends_array = meta["episode_ends"]
        self.ends = checked_ends(store.read(self._ends_array, where), where)
        self.columns = store.sub_arrays(self._data, where)
        digests = meta.get("episode_digests")
        # Shorter than the ends: another program appended episodes without digests.
        self._digest_array = digests if digests is not None and digests.shape[0] >= len(self.ends) else None
        self._check_lengths()

    @classmethod
    def create(cls, group: zarr.Group, where: str, attrs: Mapping[str, Any]) -> "Layout":
        """Returns the layout of an empty data set in a new group."""
        group.create_group("data")
        meta = group.create_group("meta")
        digest_shape = (0, DIGEST_BYTES)
        store.add_array(meta, "episode_digests", digest_shape, np.dtype(np.uint8), chunk_steps=_META_CHUNK)
        store.add_array(meta, "episode_ends", (0,), np.dtype(np.int64), chunk_steps=_META_CHUNK)
        group.attrs.update(dict(attrs))
        return cls(group, where)

    @property
    def num_steps(self) -> int:
        """N, of whole episodes."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def digests(self) -> NDArray[np.uint8] | None:
        """Returns the digests that were written with the episodes, (M, 32), or None."""
        if self._digest_array is None:
            return None
        return store.read(self._digest_array, self.where, 0, len(self.ends))

    def last_digest(self) -> bytes | None:
        """Returns the digest of all episodes, 32 bytes, as it was written with the last one; None where none is."""
        if self._digest_array is None or not len(self.ends):
            return None
        return store.read(self._digest_array, self.where, len(self.ends) - 1, len(self.ends)).tobytes()

    def append(self, episodes: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Writes episodes; each of them exists as a whole or not at all, in their order.

        Args:
            episodes: {key: (T, *shape)} each, known to fit.
        """
        done = 0
        while done < len(episodes):  # the ends of one write lie in one chunk, which appears in one step
            chunk = int(self._ends_array.chunks[0])
            room = chunk - len(self.ends) % chunk
            self._append(episodes[done : done + room])
            done += room

    def _append(self, episodes: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        start, count = self.num_steps, len(self.ends)
        columns = self.columns if count else self._new_columns(episodes[0])
        for key in episodes[0]:
            several = len(episodes) > 1  # of one, a copy would only cost memory
            values = np.concatenate([each[key] for each in episodes]) if several else episodes[0][key]
            store.append(columns[key], start, values)
        if self._digest_array is not None:
            last, rows = self.last_digest() or GENESIS, []
            for episode in episodes:
                last = chain(last, episode)
                rows.append(np.frombuffer(last, np.uint8))
            store.append(self._digest_array, count, np.array(rows))
        ends = start + np.cumsum([len(next(iter(episode.values()))) for episode in episodes], dtype=np.int64)
        store.append(self._ends_array, count, ends)
        self.columns = columns
        self.ends = np.concatenate([self.ends, ends])

    def add_column(self, key: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> store.Array:
        """Returns a new array data/<key>; its steps count once `finish` has written the ends."""
        return store.add_array(self._data, key, shape, dtype)

    def finish(self, ends: NDArray[np.int64], digests: NDArray[np.uint8]) -> None:
        """Makes the steps in columns filled by hand into episodes."""
        if self._digest_array is not None:
            store.append(self._digest_array, 0, digests)
        store.append(self._ends_array, 0, ends)

    def truncate(self) -> None:
        """Removes what an interrupted append left: the ends first, so that a kill in here is repaired likewise."""
        targets = [(self._ends_array, len(self.ends))]
        if self._digest_array is not None:
            targets.append((self._digest_array, len(self.ends)))
        targets += [(array, self.num_steps) for array in self.columns.values()]
        for array, length in targets:
            if array.shape[0] > length:
                array.resize((length, *array.shape[1:]))

    def _new_columns(self, episode: Mapping[str, NDArray[Any]]) -> dict[str, store.Array]:
        for leftover in store.sub_arrays(self._data, self.where):  # of a first append that failed
            del self._data[leftover]
        return {key: self.add_column(key, (0, *values.shape[1:]), values.dtype) for key, values in episode.items()}

    def _check_lengths(self) -> None:
        for key, array in self.columns.items():
            length = array.shape[0] if array.ndim else 0
            if length < self.num_steps:
                raise DataError(
                    f"{self.where}: data/{key} must have the {self.num_steps} steps that meta/episode_ends says, but "
                    f"has {length} (episode {episode_at(self.ends, length)} is incomplete); copy the data set again"
                )
        if self.num_steps and not self.columns:
            raise DataError(
                f"{self.where}: meta/episode_ends says {self.num_steps} steps, but data/ holds no array; "
                f"copy the data set again"
            )


def _sub_group(group: zarr.Group, name: str, where: str) -> zarr.Group:
    found = group.get(name)
    if not isinstance(found, zarr.Group):
        raise DataError(
            f"{where}: expected the groups data/ and meta/, but {name}/ is missing; "
            f"give the folder that holds both, or convert the data set to this layout"
        )
    return found
