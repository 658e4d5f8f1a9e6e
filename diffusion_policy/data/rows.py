"""The steps of one field, wherever they lie: in memory, in a file of raw pictures, or mirrored from others.

Letters: N steps, n of them that are asked for.
"""

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.errors import MissingFileError, StorageError


class Rows(Protocol):
    """N steps of one field."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape of one step)."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        ...

    def take(self, steps: Tensor) -> Tensor:
        """Returns (n, *shape) for steps (n,), whole numbers in [0, N), on their device."""
        ...


class ResidentRows:
    """Steps in memory.

    Args:
        values: (N, *shape).
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.contiguous()
        self._flat = self.values.view(len(values), -1)  # (N, size): one gather

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape of one step)."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self.values.dtype

    def take(self, steps: Tensor) -> Tensor:
        """Returns (n, *shape)."""
        return self._flat.index_select(0, steps).view(len(steps), *self.values.shape[1:])


class FileRows:
    """Steps in a file of raw uint8, row after row.

    They are read, not mapped: mapped pages count as this process's memory until somebody else needs it, read ones
    stay in the system's cache. And a file that is cut short becomes an error, not the death of the process.

    Args:
        path: the file.
        shape: of one step.
        rows: (N,) the file's row of each step.

    Raises:
        MissingFileError: no such file.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], rows: NDArray[np.int64]) -> None:
        self.path, self._step, self._rows = path, shape, rows
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise MissingFileError(f"{path} cannot be opened: {error.strerror}; start again to make it anew") from error
        self._bytes = int(np.prod(shape, dtype=np.int64))
        weakref.finalize(self, os.close, self._file)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape of one step)."""
        return (len(self._rows), *self._step)

    @property
    def dtype(self) -> torch.dtype:
        """uint8."""
        return torch.uint8

    def take(self, steps: Tensor) -> Tensor:
        """Returns (n, *shape); neighbouring steps are read together.

        Raises:
            StorageError: the file has become shorter, or cannot be read.
        """
        rows = self._rows[steps.cpu().numpy()]
        out = np.empty((len(rows), self._bytes), np.uint8)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            self._read(out[first:stop].reshape(-1), int(rows[first]) * self._bytes)
        return torch.from_numpy(out).to(steps.device).view(len(rows), *self._step)

    def _read(self, into: NDArray[np.uint8], offset: int) -> None:
        view = memoryview(into.data)
        while len(view):
            try:
                got = os.preadv(self._file, [view], offset)
            except OSError as error:
                raise StorageError(error.errno, f"{self.path} cannot be read: {error.strerror}") from error
            if not got:
                raise StorageError(f"{self.path} is cut short; delete it and start again, it will be made anew")
            view, offset = view[got:], offset + got


class MirroredRows:
    """N steps and, after them, their mirror images, made when they are asked for: they need no memory.

    Args:
        rows: the N steps.
        image: steps (n,) in [0, N) to the mirror images of what lies there, (n, *shape).
    """

    def __init__(self, rows: Rows, image: Callable[[Tensor], Tensor]) -> None:
        self._rows, self._image = rows, image

    @property
    def shape(self) -> tuple[int, ...]:
        """(2 N, *shape of one step)."""
        return (2 * self._rows.shape[0], *self._rows.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self._rows.dtype

    def take(self, steps: Tensor) -> Tensor:
        """Returns (n, *shape)."""
        count = self._rows.shape[0]
        turned = steps >= count
        out = torch.empty(len(steps), *self.shape[1:], dtype=self.dtype, device=steps.device)
        out[~turned] = self._rows.take(steps[~turned])
        if turned.any():
            out[turned] = self._image(steps[turned] - count)
        return out
