"""The steps of one field, wherever they lie: in memory, in a file of raw pictures, or mirrored from others.

Letters: N steps, n of them that are asked for.
"""

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.errors import MissingFileError, StorageError

T = TypeVar("T")


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
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise MissingFileError(f"{path} cannot be opened: {error.strerror}; start again to make it anew") from error
        self._bytes = int(np.prod(shape, dtype=np.int64))
        self._lock = threading.Lock()  # the file has one position
        weakref.finalize(self, self._file.close)

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
        breaks = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # where runs of neighbours begin; none of no steps
        with self._lock:
            for first, stop in zip(breaks, [*breaks[1:], len(rows)], strict=True):
                self._read(out[first:stop].reshape(-1), int(rows[first]) * self._bytes)
        return torch.from_numpy(out).to(steps.device).view(len(rows), *self._step)

    def _read(self, into: NDArray[np.uint8], offset: int) -> None:
        view = memoryview(into.data)
        try:
            self._file.seek(offset)
            while len(view):
                got = self._file.readinto(view)
                if not got:
                    raise StorageError(f"{self.path} is cut short; delete it and start again, it will be made anew")
                view = view[got:]
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(error.errno, f"{self.path} cannot be read: {error.strerror}") from error


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
        if not turned.all():
            out[~turned] = self._rows.take(steps[~turned])
        if turned.any():
            out[turned] = self._image(steps[turned] - count)
        return out


class Remembered(Generic[T]):
    """A function of steps that remembers its last answer: each field of a batch asks for the same.

    Args:
        answer: steps (n,) to whatever.
    """

    def __init__(self, answer: Callable[[Tensor], T]) -> None:
        self._answer = answer
        self._last: tuple[Tensor, T] | None = None

    def __call__(self, steps: Tensor) -> T:
        """Returns the answer."""
        if self._last is None or not torch.equal(self._last[0], steps):
            self._last = (steps.clone(), self._answer(steps))
        return self._last[1]
