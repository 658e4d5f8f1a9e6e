"""CSV files of numbers: a header of names, a row a step."""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import DataError

_TRUTH: Mapping[str, Any] = {"true": 1, "false": 0}


class TextColumn:
    """A column, whose numbers are made of text when they are asked for.

    Args:
        values: as text.
        where: file and column, for messages.
    """

    def __init__(self, values: Sequence[str], where: str) -> None:
        self.dtype: np.dtype[Any] = np.dtype(np.float64)
        self.shape: tuple[int, ...] = ()
        self.length = len(values)
        self._values, self._where, self._read = values, where, 0

    def rows(self, count: int) -> NDArray[Any]:
        """Returns the next `count` numbers; True and False are 1 and 0.

        Raises:
            DataError: one is no number.
        """
        words = self._values[self._read : self._read + count]
        numbers = np.empty(len(words))
        for i, word in enumerate(words):
            try:
                numbers[i] = _TRUTH.get(word.strip().lower(), word)
            except ValueError:
                row = self._read + i + 1
                raise DataError(f"{self._where} must hold numbers, but row {row} holds {word!r}; correct it") from None
        self._read += count
        return numbers


def read_csv(file: Path, known: Collection[str] | None = None) -> dict[str, TextColumn]:
    """Returns the columns of a file by the names in its first row.

    Args:
        file: its path.
        known: names that must not stand there twice; None for all.

    Raises:
        DataError: it is damaged, its columns are not separated by commas, a row is not as long as the first, or two
            columns have one name.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            head, *rows = list(csv.reader(stream, strict=True)) or [[]]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: expected text in UTF-8, but it is none ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{file}: damaged or no CSV ({error}); copy it again") from error
    if len(head) == 1 and (other := next((sign for sign in ";\t|" if sign in head[0]), None)):
        raise DataError(
            f"{file}: expected columns separated by commas, and numbers like 0.5, but its header has {other!r} between "
            f"names; save it so"
        )
    rows = [row for row in rows if row]
    names = [name.strip() for name in head]
    twice = next((name for name in names if names.count(name) > 1 and (known is None or name in known)), None)
    if twice is not None:
        raise DataError(
            f"{file}: expected one column '{twice}', but got {names.count(twice)}; rename or remove the others"
        )
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        got = len(rows[wrong])
        raise DataError(f"{file}: row {wrong + 1} has {got} fields, but its header {len(names)}; copy it again")
    return {name: TextColumn([row[j] for row in rows], f"{file}: '{name}'") for j, name in enumerate(names)}
