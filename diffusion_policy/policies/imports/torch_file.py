"""Files of `torch.save` with anything in them: tensors are read, whatever else stands there stays inert.

torch's own safe reader (`weights_only`) refuses a file whole where one class in it is unknown; published checkpoints
are full of such (their configuration is an object of another library). See `pickled`.
"""

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.errors import CheckpointError, MissingFileError
from diffusion_policy.policies.imports.inert import Named
from diffusion_policy.policies.imports.pickled import MAX_BYTES, read_pickle

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    size: int  # numbers


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file; `TorchFile.load` reads it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchFile:
    """An open file of `torch.save`.

    Attributes:
        content: what was saved; tensors are `StoredTensor`, everything else that is no plain value `Inert`.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(f"{path} is no file of torch.save: it holds {len(pickles)} data.pkl, expected one")
        self._root = pickles[0].partition("/")[0]
        order = self._entry("byteorder", 16) if f"{self._root}/byteorder" in archive.namelist() else b"little"
        if order != b"little":
            raise CheckpointError(f"{path} was written on a machine of another byte order; save it again on this one")
        self.content = read_pickle(
            self._entry("data.pkl", MAX_BYTES), str(path), stand_ins=_STAND_INS, persistent=_storage
        )

    def load(self, stored: StoredTensor) -> Tensor:
        """Returns a tensor of its own memory, on the CPU.

        Raises:
            CheckpointError: its numbers are missing, or damaged.
        """
        storage = stored.storage
        expected = storage.size * storage.dtype.itemsize
        data = self._entry(f"data/{storage.key}", expected)
        if len(data) != expected:
            raise CheckpointError(f"{self._path} is damaged: a tensor has {len(data)} bytes, expected {expected}")
        if not expected:
            return torch.empty(stored.shape, dtype=storage.dtype)
        flat = torch.frombuffer(bytearray(data), dtype=storage.dtype)
        return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()

    def _entry(self, name: str, most: int) -> bytes:
        full = f"{self._root}/{name}"
        try:
            info = self._archive.getinfo(full)
            # torch never packs; packed entries could be a thousand times as large as they look
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
                raise CheckpointError(f"{self._path}: {name} has {info.file_size} bytes, expected at most {most}")
            return self._archive.read(full)
        except KeyError as error:
            raise CheckpointError(f"{self._path} is damaged: it lacks {name}; copy it again") from error
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
            raise CheckpointError(f"{self._path} is damaged ({error}); copy it again") from error


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Yields a file of `torch.save`; nothing in it is run or imported.

    Raises:
        MissingFileError: no such file.
        CheckpointError: another kind of file, damaged, or too large.
    """
    if not path.is_file():
        raise MissingFileError(f"checkpoint {path} does not exist, or is a folder")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is cut short, or no file of torch.save since torch 1.6; copy it again, or load and save it with a "
            f"newer torch"
        ) from error
    with archive:
        yield TorchFile(path, archive)


def _storage(identity: object) -> _Storage:
    """Returns the storage that a persistent id names: ("storage", its class, its file, where it was, its size)."""
    match identity:
        case ("storage", Named(path=path), str(key), _, int(size), *_) if path in _DTYPES and size >= 0:
            if not key.isalnum():
                raise CheckpointError(f"a tensor names a file {key!r}, expected a number; refused")
            return _Storage(key, _DTYPES[path], size)
    raise CheckpointError(f"a tensor is stored in a way that is not known ({str(identity)[:100]})")


def _rebuilt(storage: object, offset: object, shape: object, stride: object, *_: object) -> StoredTensor:
    if not (isinstance(storage, _Storage) and isinstance(offset, int) and offset >= 0):
        raise CheckpointError("a tensor has no storage; the file is damaged")
    sizes, steps = (_sizes(numbers) for numbers in (shape, stride))
    if len(sizes) != len(steps):
        raise CheckpointError("a tensor's shape and strides do not fit; the file is damaged")
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    numbers = math.prod(sizes)
    # a view of few numbers that are repeated has no place among weights, and could fill any memory
    if numbers > storage.size or (numbers and last >= storage.size):
        raise CheckpointError(f"a tensor of {numbers} numbers lies outside its storage of {storage.size}; refused")
    return StoredTensor(storage, offset, sizes, steps)


def _sizes(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or not all(isinstance(n, int) and 0 <= n < 2**48 for n in numbers):
        raise CheckpointError("a tensor's shape is not made of whole numbers; the file is damaged")
    return numbers


def _parameter(data: object, *_: object) -> object:
    return data


def _ordered(pairs: object = ()) -> dict[str, Any]:
    if isinstance(pairs, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        return {str(key): value for key, value in pairs}
    raise CheckpointError("an ordered mapping is not made of pairs; the file is damaged")


_STAND_INS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_parameter": _parameter,
}
