"""Reading episodes: by key and step, by episode, in blocks; and the digests that say which they are.

Letters: N steps of all episodes, M episodes, T steps of one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data import store
from diffusion_policy.data.digest import GENESIS, chain
from diffusion_policy.data.episodes import Ends, spans
from diffusion_policy.data.layout import Layout
from diffusion_policy.errors import DataError

BLOCK_BYTES = 64 << 20
"""Read and copied at a time."""


class EpisodeReader:
    """What can be asked of stored episodes; `ReplayBuffer` adds how they are made and changed.

    Only what is asked for is read: an image key costs nothing until somebody reads it.

    Args:
        layout: the opened arrays.
    """

    def __init__(self, layout: Layout) -> None:
        self.location = layout.where
        self._layout = layout
        self._digests: dict[tuple[str, ...], str] = {}

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
        self, keys: Sequence[str] | None = None, *, block_bytes: int = BLOCK_BYTES
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

    def __repr__(self) -> str:
        keys = ", ".join(f"{key} {self.dtype(key)}{list(self.shape(key))}" for key in self.keys())
        return f"ReplayBuffer({self.location}: {self.num_episodes} episodes, {self.num_steps} steps; {keys})"

    def _column(self, key: str) -> store.Array:
        if key not in self:
            raise DataError(f"{self.location}: no data '{key}', it has: {', '.join(self.keys()) or 'nothing'}")
        return self._layout.columns[key]
