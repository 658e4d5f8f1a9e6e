"""Arrays of an npz, read row by row: a file may be larger than the memory (but for arrays in Fortran order)."""

import zipfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import DataError, DiffusionPolicyError, MissingFileError


class Column:
    """An array in an npz, read from its beginning on.

    Args:
        stream: of its .npy.
        name: of the array.
        where: the file, for messages.
    """

    def __init__(self, stream: IO[bytes], name: str, where: str) -> None:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, self.dtype = header(stream)
        if not shape or self.dtype.hasobject:  # whose pickles are never loaded
            raise DataError(f"{where}: '{name}' must hold steps of numbers, but has {self.dtype} {shape}")
        self._stream, self._name, self._where = stream, name, where
        self.length, self.shape = int(shape[0]), tuple(shape[1:])
        self._by_columns, self._read = bool(fortran), 0
        self._whole: NDArray[Any] | None = None

    def rows(self, count: int) -> NDArray[Any]:
        """Returns the next `count` rows."""
        if not self._by_columns:
            return self._next(count).reshape(count, *self.shape)
        if self._whole is None:  # the numbers of a row lie all over the file
            self._whole = self._next(self.length).reshape(self.length, *self.shape, order="F")
        self._read += count
        return np.array(self._whole[self._read - count : self._read], order="C")

    def _next(self, count: int) -> NDArray[Any]:
        """Returns the next numbers as they lie in the file, as many as `count` rows have."""
        size = count * int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        content = self._stream.read(size)
        if len(content) != size:
            raise DataError(f"{self._where}: '{self._name}' breaks off; copy the file again")
        return np.frombuffer(bytearray(content), self.dtype)


@contextmanager
def opened(source: str, known: Collection[str] | None = None) -> Iterator[dict[str, Column]]:
    """Gives the arrays of an npz; none is read yet.

    Args:
        source: its path.
        known: only these are looked at; None for all.

    Raises:
        MissingFileError: there is no such file.
        DataError: now or while they are read: the file is damaged, or holds something else than arrays of steps.
    """
    if not Path(source).is_file():
        raise MissingFileError(f"{source} does not exist; give a file of NumPy arrays (.npz)")
    try:
        with ExitStack() as held:
            archive = held.enter_context(zipfile.ZipFile(source))
            wanted = [name for name in archive.namelist() if known is None or name.removesuffix(".npy") in known]
            streams = {name.removesuffix(".npy"): held.enter_context(archive.open(name)) for name in wanted}
            yield {name: Column(stream, name, source) for name, stream in streams.items()}
    except DiffusionPolicyError:
        raise
    except Exception as error:  # zipfile, zlib and numpy have a dozen ways to say that bytes are wrong
        raise DataError(f"{source}: damaged or no npz ({' '.join(str(error).split())}); copy it again") from error


def names(source: str) -> list[str]:
    """Returns the names of the arrays in a file, none where it cannot be read; it never raises."""
    try:
        with zipfile.ZipFile(source) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile, ValueError):
        return []
