"""HDF5 files: opened with errors of one line."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusion_policy.data.formats.reading import Episode, plain_name
from diffusion_policy.errors import ConfigError, DataError, DiffusionPolicyError, MissingFileError

SUFFIXES = (".hdf5", ".h5")

_SPARE_BYTES = 32 << 20  # for what HDF5 still holds back, and its own tables


@contextmanager
def opened(source: str, whose: str) -> Iterator[Any]:
    """Gives a file, opened for reading.

    Args:
        source: its path.
        whose: "D4RL's files", for messages.

    Raises:
        MissingFileError: there is no such file.
        DataError: now or while it is read: it is damaged.
        ConfigError: h5py is missing.
    """
    h5py = library(source, whose)
    if not Path(source).is_file():
        what = "is no file" if Path(source).exists() else "does not exist"
        raise MissingFileError(f"{source} {what}; give one of {whose} (.hdf5)")
    try:
        with h5py.File(source, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py says of damaged files, at any read
        if isinstance(error, DiffusionPolicyError):
            raise
        raise DataError(f"{source}: damaged or no HDF5 ({' '.join(str(error).split())}); copy it again") from error


def with_room(episodes: Iterator[Episode], folder: Path) -> Iterator[Episode]:
    """Yields episodes as long as there is room for each: a disk that is full while HDF5 writes ends the process.

    Raises:
        OSError: there is none for the next.
    """
    for episode in episodes:
        if shutil.disk_usage(folder).free < sum(values.nbytes for values in episode.values()) + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield episode


def library(where: str, whose: str) -> Any:
    """Returns h5py.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{where}: {whose} need h5py, which is not installed: pip install 'diffusion-policy[offline]'"
        ) from error
    return h5py


def holds_group(source: str, name: str) -> bool:
    """Returns whether a file can be opened and has a group of this name; it never raises."""
    path = Path(source)
    if path.suffix not in SUFFIXES or not path.is_file() or find_spec("h5py") is None:
        return False
    import h5py

    try:
        with h5py.File(source, "r") as file:
            return isinstance(file.get(name), h5py.Group)
    except (OSError, RuntimeError, KeyError):
        return False


def groups(group: Any, where: str) -> dict[str, Any]:
    """Returns the groups directly in a group, by name.

    Raises:
        DataError: a name is no plain name, or a link.
    """
    return {name: each for name, each in _members(group, where) if hasattr(each, "keys")}


def arrays(group: Any, where: str, depth: int = 4) -> dict[str, Any]:
    """Returns the arrays in a group and the groups below it, by path, sorted.

    Args:
        group: of h5py.
        where: the file, for messages.
        depth: of groups, at most: a group may hold itself.

    Raises:
        DataError: a name is no plain name, or a link; or groups lie too deep.
    """
    if not depth:
        raise DataError(f"{where}: expected groups of four levels at most; its structure is damaged")
    found: dict[str, Any] = {}
    for name, member in _members(group, where):
        if hasattr(member, "keys"):
            found |= {f"{name}/{path}": each for path, each in arrays(member, where, depth - 1).items()}
        else:
            found[name] = member
    return found


def _members(group: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yields groups and arrays.

    A file may hold links into other files, and arrays whose numbers lie in other files; both are refused, for they
    could name any file of this machine.
    """
    import h5py

    for name in sorted(group):
        plain_name(name, where)
        found = member(group, name, where)
        if isinstance(found, (h5py.Dataset, h5py.Group)):
            yield name, found


def member(group: Any, name: str, where: str) -> Any:
    """Returns what a group holds under a name.

    Raises:
        DataError: it lies in another file, or is a link.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{where}: '{name}' is a link to something else, expected an array; copy it to its place")
    found = group[name]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise DataError(f"{where}: '{name}' lies in another file, expected it in this one; copy it here")
    return found


def check_whole(group: Any, where: str) -> None:
    """Raises DataError if anything in a group, however deep, is a link or lies in another file; see `arrays`."""
    import h5py

    waiting, seen = [group], set()
    while waiting:
        each = waiting.pop()
        for name in each:
            found = member(each, name, where)
            if isinstance(found, h5py.Group) and found.id not in seen:  # a group may hold itself
                seen.add(found.id)
                waiting.append(found)
