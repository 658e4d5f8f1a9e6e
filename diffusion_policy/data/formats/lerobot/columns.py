"""Rows of a LeRobot data file as arrays.

Letters: T rows, (H, W) height and width of pictures.
"""

import io
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_policy.data.formats.lerobot import layout
from diffusion_policy.data.formats.lerobot.info import Told
from diffusion_policy.errors import DataError

_ROWS = 64  # of pictures, read at once
_MANY = 8192  # of numbers


class Rows:
    """The rows of parquet files, one after another; one file is open at a time.

    Args:
        paths: of the files, in the order of their rows.
        names: of the columns to read.
        large: whether a row holds pictures.
        where: the data set, for messages.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str], where: str, *, large: bool) -> None:
        self._paths, self._names, self._where = paths, list(names), where
        self._size = _ROWS if large else _MANY
        self._batches = self._read()
        self._rest: Any = None

    def __enter__(self) -> "Rows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.close()

    def take(self, count: int) -> Any:
        """Returns the next rows as a table.

        Raises:
            MissingFileError: a file is missing.
            DataError: one is damaged or lacks a column, or there are fewer rows.
        """
        found, have = [], 0
        while have < count:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            self._rest = None
            if batch is None:
                raise DataError(
                    f"{self._where}: expected {count - have} more rows, but its data files end; copy it again"
                )
            taken = batch.slice(0, count - have)
            if taken.num_rows < batch.num_rows:
                self._rest = batch.slice(taken.num_rows)
            found.append(taken)
            have += taken.num_rows
        return layout.library(self._where).Table.from_batches(found)

    def _read(self) -> Generator[Any, None, None]:
        for path in self._paths:
            with layout.parquet(path) as file:
                there = file.schema_arrow.names
                missing = [name for name in self._names if name not in there]
                if missing:
                    raise DataError(
                        f"{path}: expected the column '{missing[0]}' as info.json says, but it is missing; it has: "
                        f"{', '.join(there)}"
                    )
                for batch in file.iter_batches(batch_size=self._size, columns=self._names, use_threads=False):
                    yield batch.select(self._names)


def numbers(column: Any, told: Told, where: str) -> NDArray[Any]:
    """Returns a column of numbers (T, *shape).

    Args:
        column: of pyarrow: plain, or lists in lists.
        told: what info.json says of it.
        where: file and feature, for messages.

    Raises:
        DataError: it holds no numbers, gaps, or another shape.
    """
    rows = len(column)
    array = column.combine_chunks()
    array = array.combine_chunks() if hasattr(array, "chunks") else array
    while True:
        if array.null_count:
            raise DataError(f"{where} must hold a value in every row, but some are missing; leave out the episode")
        array = getattr(array, "storage", array)  # an extension type of the library `datasets`
        if not hasattr(array, "flatten") or not hasattr(array.type, "value_type"):
            break
        if hasattr(array, "offsets") and len(set(np.diff(array.offsets.to_numpy()).tolist())) > 1:
            raise DataError(f"{where} must have shape {told.shape} in every row, but its rows differ in length")
        array = array.flatten()
    kind = _kind(array)
    if kind is None or kind != np.dtype(told.dtype).kind.replace("u", "i"):
        raise DataError(f"{where} must hold {told.dtype} as info.json says, but got {column.type}; get the file again")
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    if values.size != rows * int(np.prod(told.shape)):
        raise DataError(
            f"{where} must have shape {told.shape} as info.json says, but has {values.size // max(rows, 1)} numbers a "
            f"row; get the file again"
        )
    return values.reshape(rows, *told.shape)


def pictures(column: Any, told: Told, where: str) -> NDArray[np.uint8]:
    """Returns a column of encoded pictures (PNG, JPEG) as (T, H, W, 3).

    Raises:
        DataError: it holds something else, or pictures of another size.
    """
    found = np.empty(0, np.uint8)
    for i, content in enumerate(_encoded(column, where)):
        picture = decoded(content, told.size, f"{where}: frame {i}")
        if not i:  # by now the size is more than something that was told
            found = np.empty((len(column), *picture.shape), np.uint8)
        found[i] = picture
    return found


def decoded(content: bytes, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """Returns an encoded picture as (H, W, 3).

    Raises:
        DataError: it is damaged, or of another size.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.size != size[::-1]:  # before its pixels are unpacked
                raise DataError(
                    f"{where} must be {size[0]} x {size[1]} pixels (height, width) as info.json says, but is "
                    f"{opened.size[1]} x {opened.size[0]}; get the file again"
                )
            if opened.mode.startswith(("I", "F")):
                raise DataError(
                    f"{where} must have 8 bits a colour, but is a PNG of mode {opened.mode}; scale it first"
                )
            return np.asarray(opened.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: damaged or no picture ({' '.join(str(error).split())}); copy it again") from error


def _encoded(column: Any, where: str) -> Iterator[bytes]:
    for chunk in column.chunks:
        held = getattr(chunk, "storage", chunk)
        if str(held.type).startswith("struct") and held.type.get_field_index("bytes") >= 0:
            held = held.field("bytes")
        if "binary" not in str(held.type):
            raise DataError(f"{where} must hold pictures, bytes of PNG or JPEG, but got {column.type}; get it again")
        for each in held:
            content = each.as_py()
            if content is None:  # a path instead could name any file of this machine
                raise DataError(f"{where} must hold pictures, but one lies in another file; embed them by LeRobot")
            yield content


def _kind(array: Any) -> str | None:
    """Returns i, f or b as NumPy calls it, None for no numbers."""
    name = str(array.type)
    if name == "bool":
        return "b"
    if name.startswith(("int", "uint")):
        return "i"
    return "f" if name in ("float", "double", "halffloat") else None
