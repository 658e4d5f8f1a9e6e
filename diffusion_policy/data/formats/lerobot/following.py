"""Pictures of what followed each step, which LeRobot has no place for: the next frame's, or kept beside the frames."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.lerobot import layout
from diffusion_policy.data.formats.lerobot.columns import decoded
from diffusion_policy.data.formats.lerobot.features import follows
from diffusion_policy.data.formats.reading import Episode
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import DataError


class Following:
    """Reads them, episode after episode.

    Args:
        root: of the data set.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / layout.FOLLOWING
        self._opened: Any = None
        self._batches: Any = None
        self._ahead: list[dict[str, Any]] = []

    def __enter__(self) -> "Following":
        if self._path.exists():
            self._opened = layout.parquet(self._path)
            self._batches = self._opened.__enter__().iter_batches(batch_size=64, use_threads=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.__exit__(None, None, None)

    def read(
        self, begin: int, seen: Mapping[str, NDArray[Any]], forms: Mapping[str, layout.Form], where: str
    ) -> Episode:
        """Returns the pictures that followed the steps of an episode, {key: (T, H, W, 3)}.

        Args:
            begin: number of the episode's first frame in the data set.
            seen: {key: pictures of the steps}.
            forms: of all our keys.
            where: the episode, for messages.

        Raises:
            DataError: one that no frame shows is missing, or damaged.
        """
        shown = [key for key, values in seen.items() if values.ndim == 4]
        keys = [key for key in forms if follows(key, forms) and key.removeprefix(NEXT) in shown]
        if not keys:
            return {}
        steps = len(next(iter(seen.values())))
        kept = self._rows(begin + steps)
        found: Episode = {}
        for key in keys:
            pictures = seen[key.removeprefix(NEXT)]
            last = [row for row in kept if row["index"] == begin + steps - 1 and row.get(key)]
            if not last:
                raise DataError(f"{where}: expected '{key}' of its last step in {self._path}, but it is missing")
            found[key] = np.concatenate([pictures[1:], pictures[-1:]])
            for row in kept:
                if row.get(key):
                    place = f"{self._path}: '{key}' of frame {row['index']}"
                    found[key][row["index"] - begin] = decoded(row[key]["bytes"], pictures.shape[1:3], place)
        return found

    def _rows(self, end: int) -> list[dict[str, Any]]:
        """Returns the rows before a frame that were not returned before."""
        while self._batches is not None and (not self._ahead or self._ahead[-1]["index"] < end):
            batch = next(self._batches, None)
            if batch is None:
                self._batches = None
            else:
                self._ahead += batch.to_pylist()
        found = [row for row in self._ahead if row["index"] < end]
        self._ahead = self._ahead[len(found) :]
        return found
