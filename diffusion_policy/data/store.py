"""Where episodes lie: a zarr group in a folder, in a .zip, or in memory."""

import hashlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, MemoryStore, ZipStore

from diffusion_policy.data.codecs import codec_remedy, register_picture_codecs
from diffusion_policy.errors import DataError, DiffusionPolicyError, MissingFileError, OutputExistsError, StorageError
from diffusion_policy.locks import FolderLock

ZarrFormat = Literal[2, 3]
Array = zarr.Array[Any]

_GROUP_MARKERS = (".zgroup", "zarr.json")
_LOW_DIM_CHUNK_BYTES = 1 << 20
_IMAGE_CHUNK_BYTES = 1 << 18  # a few frames: a chunk is what one random read decodes
_IMAGE_STEP_BYTES = 4096
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a .zip can hold: equal content, equal bytes


def is_group(folder: Path) -> bool:
    """Returns whether a folder is a zarr group."""
    return any((folder / marker).is_file() for marker in _GROUP_MARKERS)


def memory_group(zarr_format: ZarrFormat) -> zarr.Group:
    """Returns a new, empty group in memory."""
    return zarr.open_group(MemoryStore(), mode="w", zarr_format=zarr_format)


def create_group(path: Path, *, overwrite: bool, zarr_format: ZarrFormat) -> tuple[zarr.Group, FolderLock]:
    """Returns a new, empty group in the folder `path`, and the lock that keeps other writers out.

    Raises:
        OutputExistsError: something is there and may not, or must not, be replaced, or is being written.
        DataError: a .zip was asked for, which cannot grow safely.
        StorageError: the folder cannot be written.
    """
    if path.suffix == ".zip":
        raise DataError(
            f"{path}: expected a folder to append episodes to, but got a .zip, which a crash would leave unreadable; "
            f"create '{path.with_suffix('')}' and save('{path}') when it is complete"
        )
    with storage_errors(str(path)), replaceable(path, overwrite=overwrite):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.mkdir(parents=True)
        lock = FolderLock(path, "data set")
        return zarr.open_group(LocalStore(path), mode="w-", zarr_format=zarr_format), lock


def open_group(path: Path, mode: Literal["r", "a"]) -> tuple[zarr.Group, ZipStore | None]:
    """Returns the group at `path`, and the archive to close after use if there is one.

    Raises:
        MissingFileError: nothing is there.
        DataError: it is not a zarr group, or an archive is asked to grow.
    """
    if not path.exists():
        raise MissingFileError(f"data set {path} does not exist; give a zarr folder or a .zip of one")
    archive: ZipStore | None = None
    inside = ""
    if path.is_file():
        if mode == "a":
            raise DataError(f"{path}: expected a folder to append to, but got a file; save() it as a folder first")
        inside = _root_in_zip(path)
        archive = ZipStore(path, mode="r")
    elif not is_group(path):
        raise DataError(_not_a_zarr(path))
    store = archive or LocalStore(path, read_only=mode == "r")
    try:
        # Consolidated metadata would show the shapes from before the last append.
        return zarr.open_group(store, path=inside or None, mode="r" if mode == "r" else "r+", use_consolidated=False), (
            archive
        )
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path}: expected a zarr group, but zarr says: {error}; copy the data set again") from error


def sub_arrays(group: zarr.Group, where: str) -> dict[str, Array]:
    """Returns the arrays directly inside a group, by name.

    Raises:
        DataError: an array's description is damaged or needs a codec that is not installed.
    """
    register_picture_codecs()
    try:
        with warnings.catch_warnings():  # left-overs of a killed write are no members; zarr would warn of each
            warnings.simplefilter("ignore")
            return dict(sorted(group.arrays()))
    except (ValueError, KeyError, TypeError) as error:
        remedy = codec_remedy(error)
        raise DataError(f"{where}: cannot read the arrays of /{group.path}, zarr says: {error}{remedy}") from error


def add_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, chunk_steps: int | None = None
) -> Array:
    """Returns a new array (steps first) with chunks of about 1 MB, or of a few frames for images.

    Blosc-zstd with bit shuffling is what the field's files use; any zarr 2 reader knows it.
    """
    step_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    budget = _IMAGE_CHUNK_BYTES if step_bytes >= _IMAGE_STEP_BYTES else _LOW_DIM_CHUNK_BYTES
    chunk_steps = chunk_steps or max(1, budget // max(1, step_bytes))
    compressor: Any
    if group.metadata.zarr_format == 2:
        compressor = {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0}  # 2: by bits
    else:
        compressor = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=dtype.itemsize)
    return group.create_array(
        name,
        shape=shape,
        chunks=(chunk_steps, *shape[1:]),
        dtype=dtype,
        compressors=compressor,
        fill_value=0,
        overwrite=True,
    )


def read(array: Array, where: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Returns entries [start, stop) of an array.

    Raises:
        DataError: a chunk is damaged.
    """
    try:
        return np.asarray(array[start:stop])
    except DiffusionPolicyError:
        raise  # of a store that could not be reached
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"{where}: {array.path} cannot be decoded in [{start}, {stop}), zarr says: {error}; copy the data set again"
        ) from error


def append(array: Array, start: int, values: NDArray[Any]) -> None:
    """Writes `values` from `start` on and makes them the array's end, whatever an earlier failure left there."""
    array.resize((start + len(values), *array.shape[1:]))
    array[start : start + len(values)] = values


def fingerprint(path: Path, key: str) -> str:
    """Returns what changes when the stored files of data/<key> do, without reading them.

    The times of modification alone would not do: archives and careful copies keep them.
    """
    files = [path] if path.is_file() else sorted(each for each in (path / "data" / key).rglob("*") if each.is_file())
    listed = [str(path.resolve()), key]
    for file in files:
        stat = file.stat()
        listed.append(f"{file.name} {stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}")
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def remove_partial_writes(folder: Path) -> None:
    """Deletes the temporary files of writes that were killed."""
    for leftover in folder.rglob("*.partial"):
        leftover.unlink(missing_ok=True)
    (folder / ".zmetadata").unlink(missing_ok=True)  # would be stale after the first append


@contextmanager
def replaceable(path: Path, *, overwrite: bool) -> Iterator[None]:
    """Keeps writers out of what stands at `path` while it is replaced; `overwrite` allows a file or a zarr there.

    Raises:
        OutputExistsError: something is there and stays there, or is being written.
    """
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} already exists; choose another place, or pass overwrite=True")
    if path.is_dir() and any(path.iterdir()) and not is_group(path):
        raise OutputExistsError(f"{path} is a folder but not a zarr, so it is not overwritten; choose another place")
    with FolderLock(path, "data set") if path.is_dir() else nullcontext():
        yield


def replace(path: Path, built: Path) -> None:
    """Puts what was built at `path`, in place of what is there."""
    if path.is_dir():
        path.rename(built.parent / "old")  # goes with the staging folder
    built.replace(path)


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` that is gone afterwards: what is built there can be moved in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder)


def pack_zip(folder: Path, archive: Path) -> None:
    """Writes the files of a folder, uncompressed since chunks are, in a fixed order and with a fixed time."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        for file in sorted(each for each in folder.rglob("*") if each.is_file()):
            info = zipfile.ZipInfo(file.relative_to(folder).as_posix(), date_time=_ZIP_TIME)
            info.external_attr = 0o644 << 16
            out.writestr(info, file.read_bytes())


@contextmanager
def storage_errors(where: str, *, anew: bool = False) -> Iterator[None]:
    """Turns the operating system's write errors (a full disk) into one that says what is safe.

    Args:
        where: what is written, for messages.
        anew: it is something new, of which nothing is left; then this is said of errors that name what is inside, too.

    Raises:
        StorageError: with the same errno.
    """
    try:
        yield
    except OSError as error:
        cause = error.__cause__ if anew and isinstance(error, StorageError) else error
        if not isinstance(cause, OSError) or isinstance(cause, DiffusionPolicyError):
            raise  # says it already
        kept = "" if anew else "episodes written before are intact, "
        raise StorageError(
            cause.errno,
            f"{where}: writing failed ({cause.strerror or cause}); {kept}free some space or choose another place",
        ) from cause


def _root_in_zip(path: Path) -> str:
    """Returns the folder inside an archive that is the zarr group: often the archive holds one folder around it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path}: expected a zarr folder or a .zip of one, but this file is neither ({error}); "
            f"it may be cut short: copy it again; of other formats dp-convert makes a zarr"
        ) from error
    roots = sorted({name.split("meta/episode_ends/")[0] for name in names if "meta/episode_ends/" in name})
    if len(roots) != 1:
        found = ", ".join(root or "/" for root in roots) or "none"
        raise DataError(
            f"{path}: expected one data set with meta/episode_ends in the archive, but found {found}; "
            f"unzip it and give the folder"
        )
    return roots[0].rstrip("/")


def _not_a_zarr(path: Path) -> str:
    names = sorted(each.name for each in path.iterdir())
    nested = [name for name in names if is_group(path / name)]
    remedy = (
        f"give {path / nested[0]}" if nested else "give the folder that holds data/ and meta/, or first dp-convert it"
    )
    listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    return (
        f"{path}: not a zarr, expected a group with data/ and meta/episode_ends, but found {listed or 'nothing'}; "
        f"{remedy}"
    )
