"""The order of files that are numbered: 2 before 10, with leading zeros or without."""

import re
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from diffusion_policy.errors import DataError

_WHOLE = re.compile(r"(\d+)")
_DECIMAL = re.compile(r"(\d+(?:\.\d+)?)")  # 12.25: a time, or the 25th of the 12th
_TIME = re.compile(r"(?<![\d.])(\d{9,}|0)\.\d+(?!\.?\d)")  # seconds since 1970, or since a recording began: 0.033

_Numbers = list[list[str | Decimal]]


def in_order(files: Iterable[Path], folder: Path, where: str) -> list[Path]:
    """Returns files in the order of the numbers in their names; whatever else is in them is compared as text.

    Args:
        files: in any order.
        folder: that they lie in; what leads to it does not count.
        where: what they are, for messages.

    Raises:
        DataError: two names tell no order: of one number (front_01, front_1), or with a point that may be a decimal one
            (1.5, 1.25).
    """
    numbers = {file: _numbers(file.relative_to(folder)) for file in files}
    times = any(_TIME.search(file.stem) for file in numbers)  # decimals, then, of as many digits as Python prints
    ordered = sorted(numbers, key=lambda file: (numbers[file][int(times)], file))
    for one, other in pairwise(ordered):
        readings = [(a, b) for a, b in zip(numbers[one], numbers[other], strict=True)][int(times) :]
        if not all(a < b for a, b in readings):
            first, second = (file.relative_to(folder).as_posix() for file in (one, other))
            raise DataError(
                f"{where}: expected names that tell which is first, but got {first} and {second}; number them with "
                f"leading zeros (0001, 0002), and give decimals as many digits"
            )
    return ordered


def _numbers(path: Path) -> list[_Numbers]:
    """Returns text, number, text ... of each part of a path without its suffix: for whole numbers, for decimal ones."""
    parts = path.with_suffix("").parts
    return [
        [[Decimal(piece) if i % 2 else piece for i, piece in enumerate(reading.split(part))] for part in parts]
        for reading in (_WHOLE, _DECIMAL)
    ]
