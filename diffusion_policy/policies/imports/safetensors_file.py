"""Reads .safetensors files: a header of names, dtypes, shapes and places, then the numbers. No library needed.

The format: 8 bytes, little-endian, the size of the header; the header, JSON; the numbers, without gaps.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.errors import CheckpointError, MissingFileError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER = 100_000_000  # bytes, as the format says


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by name, on the CPU.

    Raises:
        MissingFileError: no such file.
        CheckpointError: cut short, damaged, or of another format.
    """
    if not path.is_file():
        raise MissingFileError(f"weights {path} do not exist")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 8 < begin <= min(len(data), _MAX_HEADER + 8):
        raise CheckpointError(f"{path} is cut short, or no .safetensors file; copy it again")
    try:
        header = json.loads(data[8:begin])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        places = {name: _place(entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read; copy it again") from error
    _check_gapless(path, places.values(), len(data) - begin)
    numbers = memoryview(bytearray(data[begin:]))
    return {name: _tensor(numbers, *place) for name, place in places.items()}


_Place = tuple[torch.dtype, tuple[int, ...], int, int]


def _place(entry: Any) -> _Place:
    """Returns dtype, shape, begin and end of an entry of the header, which fit."""
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise ValueError("sizes must be whole numbers")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("shape and place do not fit")
    return dtype, shape, begin, end


def _check_gapless(path: Path, places: Iterable[_Place], size: int) -> None:
    """Raises unless tensors lie one behind the other: a file whose tensors overlap could fill any memory."""
    at = 0
    for _, _, begin, end in sorted(places, key=lambda place: place[2:]):
        if begin != at:
            raise CheckpointError(f"{path} is damaged: its tensors overlap or leave gaps; copy it again")
        at = end
    if at != size:
        raise CheckpointError(f"{path} is cut short: its tensors take {at} bytes, but it has {size}; copy it again")


def _tensor(numbers: memoryview, dtype: torch.dtype, shape: tuple[int, ...], begin: int, end: int) -> Tensor:
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(numbers[begin:end], dtype=dtype).reshape(shape).clone()
