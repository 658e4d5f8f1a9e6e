"""Parquet files of a LeRobot data set, written one after another, each below a size."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from diffusion_policy.data.formats.lerobot.layout import FILE_MB, FILES_PER_CHUNK, library

_MB = 1 << 20


class Files:
    """Files of one kind, of which one is open at a time.

    Args:
        root: of the data set.
        template: of their paths, with {chunk_index} and {file_index}.
        schema: of pyarrow.
        plain: columns that are compressed already.
    """

    def __init__(self, root: Path, template: str, schema: Any, plain: Sequence[str] = ()) -> None:
        self._root, self._template, self._schema, self._plain = root, template, schema, plain
        self._pyarrow = library(str(root))
        self._number = 0
        self._bytes = 0
        self._writer: Any = None

    def __enter__(self) -> "Files":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def place(self, num_bytes: int) -> tuple[int, int]:
        """Returns chunk and file for the next rows, a new one where the last would grow too large.

        Args:
            num_bytes: of the rows, about.
        """
        if self._bytes and self._bytes + num_bytes > FILE_MB * _MB:
            self._close()
            self._number, self._bytes = self._number + 1, 0
        return divmod(self._number, FILES_PER_CHUNK)

    def write(self, table: Any) -> None:
        """Writes rows, a row group, to the file that `place` named."""
        if self._writer is None:
            chunk, number = divmod(self._number, FILES_PER_CHUNK)
            path = self._root / self._template.format(chunk_index=chunk, file_index=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            coded = [name for name in self._schema.names if name not in self._plain]
            self._writer = self._pyarrow.parquet.ParquetWriter(path, self._schema, use_dictionary=coded)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._bytes += table.nbytes

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
