"""Files of plain values and tensors: written whole or not at all, read without running what is in them.

policy.pt, augmenter.pt and the states that runs go on from are such files.
"""

import os
import pickle
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from diffusion_policy.errors import CheckpointError, MissingFileError, StorageError

Migrations = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]
"""From format n to n + 1."""

_NO_MIGRATIONS: Migrations = MappingProxyType({})


def read_sections(
    path: str | Path,
    what: str,
    *,
    expected: str,
    newest: int,
    sections: Collection[str],
    mappings: Collection[str],
    migrations: Migrations = _NO_MIGRATIONS,
    telling: str = "format",
) -> dict[str, Any]:
    """Returns the content of a file that has a format number, checked, and migrated to the newest format.

    Args:
        path: the file.
        what: how to call it in messages.
        expected: what should have been given, for messages.
        newest: the format that this version writes.
        sections: what a whole file holds.
        mappings: those of them that are mappings.
        migrations: from every older format to the next.
        telling: without this entry it is another kind of file.

    Raises:
        MissingFileError: no such file.
        CheckpointError: damaged, unsafe, of a newer format, not whole, or something else.
    """
    content = read_tensors(path, what)
    number = content.get("format")
    if not isinstance(number, int) or number < 1:
        raise CheckpointError(f"{path} is no {what}: it has no format number; expected {expected}")
    if telling not in content:
        raise CheckpointError(f"{path} is no {what}: it has no {telling}; expected {expected}")
    if number > newest:
        raise CheckpointError(
            f"{path} has format {number}, this version reads up to {newest}; upgrade diffusion-policy to load it"
        )
    missing = [name for name in sections if name not in content]
    if missing:
        raise CheckpointError(f"{path} is no whole {what}: {', '.join(missing)} missing")
    odd = [name for name in mappings if not isinstance(content[name], dict)]
    if odd:
        raise CheckpointError(f"{path} is no whole {what}: {', '.join(odd)} should be mappings")
    for old in range(number, newest):
        content = migrations[old](content)
    return content


def save_atomically(content: Any, path: str | Path) -> None:
    """`torch.save` into a neighbour, flushed to disk, then renamed: a reader sees the old file or the new one.

    Raises:
        StorageError: the disk is full or the folder not writable; an older file at `path` is intact.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        Path(name).chmod(0o644)  # mkstemp's 0600 would keep a colleague from reading the result
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise StorageError(
            f"cannot write {target}: {error}; free some space and resume, what was saved before is intact"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def read_tensors(path: str | Path, what: str) -> dict[str, Any]:
    """Returns a file of plain values and tensors; code in it is refused, not run.

    Args:
        path: the file.
        what: how to call it in messages.

    Raises:
        MissingFileError: no such file.
        CheckpointError: cut short, or holds something other than data.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise MissingFileError(f"{what} {file} is a folder; name the file in it, e.g. {file / 'policy.pt'}")
    if not file.is_file():
        raise MissingFileError(f"{what} {file} does not exist")
    if file.suffix in (".pt2", ".onnx"):
        raise CheckpointError(f"{file} is an exported policy; expected the {what} that it was made of")
    _check_sums(file, what)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():  # torch's word for "names a function or class"; else it is garbage
            raise CheckpointError(
                f"{file} is no {what}: it holds something other than plain data and tensors, and loading it would "
                f"execute code (refused)"
            ) from error
        raise CheckpointError(f"{file} is cut short or not a {what}; copy it again or use another one") from error
    except Exception as error:  # a damaged file can make the reader raise anything
        raise CheckpointError(f"{file} is cut short or not a {what}; copy it again or use another one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is no {what}: expected a mapping, got {type(content).__name__}")
    return content


def _check_sums(file: Path, what: str) -> None:
    """Raises CheckpointError where a bit has flipped since the file was written; torch's reader would not notice."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, zlib.error):
        return  # cut short, or an older kind of file: the reader says so
    if broken is not None:
        raise CheckpointError(f"{file} is damaged: {broken} is not what was written; copy the {what} again")
