"""Data sets behind addresses that fsspec reads: http://, s3://, memory:// ... They are only read.

Each chunk is fetched once for as long as what was fetched stays small; an archive (.zip) is fetched as a whole. Which
arrays there are tells the store's consolidated metadata, or else a listing, which plain http servers often refuse.
"""

import errno
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import FsspecStore, WrapperStore

from diffusion_policy.data.residence import cache_folder
from diffusion_policy.data.store import open_group
from diffusion_policy.errors import (
    ConfigError,
    DataError,
    DiffusionPolicyError,
    MissingFileError,
    RemoteError,
    StorageError,
)

CONNECT_S, SILENCE_S = 30.0, 60.0
"""Of http: until a server answers, and between two pieces of an answer; other file systems have their own patience."""
_KEPT_BYTES = 256 << 20  # of fetched chunks, compressed: a digest reads what was loaded once more


@contextmanager
def remote_group(url: str) -> Iterator[zarr.Group]:
    """Gives the group at an address, until the end.

    Raises:
        MissingFileError: nothing is there.
        DataError: it is not a zarr group.
        ConfigError: nobody can read such an address, or a package is missing for it.
        RemoteError: no connection, no answer, no permission.
        StorageError: an archive cannot be fetched, for the disk is full.
    """
    system, place = _file_system(url)
    if urlsplit(url).path.endswith(".zip"):
        with _fetched(system, place, url) as archive:
            yield archive
        return
    store = RemoteStore(FsspecStore(system, read_only=True, path=place.rstrip("/")), url)
    try:
        group = zarr.open_group(store, mode="r", use_consolidated=False)
    except FileNotFoundError:
        raise MissingFileError(
            f"data set {url} does not exist: neither zarr.json nor .zgroup is there; give the folder that holds data/ "
            f"and meta/, or a .zip of it"
        ) from None
    except (ValueError, KeyError) as error:
        raise DataError(f"{url}: expected a zarr group, but zarr says: {error}; copy the data set again") from error
    try:
        yield group
    finally:
        store.forget()


class RemoteStore(WrapperStore[FsspecStore]):
    """Reads through fsspec; says in one line what went wrong, and remembers what it has fetched.

    Args:
        store: reads.
        url: the address, for messages.
    """

    def __init__(self, store: FsspecStore, url: str = "") -> None:
        super().__init__(store)
        self._url = url.rstrip("/")
        self._kept: dict[str, bytes] = {}
        self._kept_bytes = 0

    def _with_store(self, store: FsspecStore) -> "RemoteStore":
        return RemoteStore(store, self._url)

    def forget(self) -> None:
        """Frees what was fetched."""
        self._kept.clear()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Returns what lies at a key; None where nothing does."""
        if byte_range is None and key in self._kept:
            return prototype.buffer.from_bytes(self._kept[key])
        try:
            found = await self._store.get(key, prototype, byte_range)
        except Exception as error:  # of any file system: http, s3 and so on have their own
            raise _failed(f"{self._url}/{key}", error) from error
        if found is not None and byte_range is None and self._kept_bytes + len(found) <= _KEPT_BYTES:
            self._kept[key] = found.to_bytes()
            self._kept_bytes += len(found)
        return found

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yields what lies directly in a folder: what consolidated metadata name, or else what is listed.

        Raises:
            RemoteError: neither tells.
        """
        named = await self._consolidated()
        begin = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if named is not None:
            inside = {name.removeprefix(begin) for name in named if name.startswith(begin)}
            found = {name.partition("/")[0] for name in inside}
        else:
            try:
                found = {name.rstrip("/") async for name in self._store.list_dir(prefix)}
            except Exception as error:
                raise self._unlisted(prefix) from error
        names = sorted(name for name in found if name and name[0] not in ".?" and name != "zarr.json")
        if not names and self._url.startswith("http"):
            raise self._unlisted(prefix)
        for name in names:
            yield name

    async def _consolidated(self) -> list[str] | None:
        """Returns the paths of all groups and arrays; None where the store does not tell them."""
        for key in ("zarr.json", ".zmetadata"):
            found = await self.get(key, default_buffer_prototype())
            if found is not None:
                content = json.loads(found.to_bytes())
                told = content if key == ".zmetadata" else content.get("consolidated_metadata")
                if told:
                    members = told["metadata"]  # format 2 names files, data/action/.zarray
                    return [name.rpartition("/")[0] if key == ".zmetadata" else name for name in members]
        return None

    def _unlisted(self, prefix: str) -> RemoteError:
        return RemoteError(
            f"{self._url}/{prefix.strip('/')}: cannot be listed, and the store has no consolidated metadata; run "
            f"zarr.consolidate_metadata on it where it lies, or put a .zip of it there"
        )


def _file_system(url: str) -> tuple[Any, str]:
    """Returns what reads an address, asynchronously as zarr wants it, and the address as it takes it."""
    if secret := [part for part in map(urlsplit, url.split("::")) if part.password]:  # simplecache::http://...
        raise ConfigError(
            f"{secret[0].scheme}://...@{secret[0].hostname}: a password does not belong into an address, "
            f"which is written into files; put it into fsspec's configuration"
        )
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

        system, place = url_to_fs(url, **_patience(url))
    except ImportError as error:
        raise ConfigError(
            f"{url}: {error}; for http: pip install 'diffusion-policy[remote]', for others fsspec's package for them "
            f"(s3fs, gcsfs, ...)"
        ) from error
    except Exception as error:
        raise _failed(url, error) from error
    return AsyncFileSystemWrapper(system, asynchronous=True), place


def _patience(url: str) -> dict[str, Any]:
    """Returns options of an http file system, beside those of fsspec's configuration."""
    protocol = url.partition("://")[0].lower()
    if protocol not in ("http", "https"):
        return {}
    import aiohttp
    from fsspec.config import conf

    told = (conf.get(protocol) or {}).get("client_kwargs") or {}
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": limits, **told}}


@contextmanager
def _fetched(system: Any, place: str, url: str) -> Iterator[zarr.Group]:
    """Gives the group in an archive, which lies in the user's cache folder while it is open, without a name."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".fetched.", dir=folder)
        os.close(handle)
    except OSError as error:
        raise StorageError(
            error.errno, f"{folder} cannot be written ({error.strerror}), where {url} is fetched to; set XDG_CACHE_HOME"
        ) from error
    archive = None
    try:
        try:
            system.sync_fs.get_file(place, name)
        except Exception as error:
            raise _failed(url, error) from error
        try:
            group, archive = open_group(Path(name), "r")
        except DataError as error:
            raise DataError(str(error).replace(name, url)) from error
    finally:
        Path(name).unlink(missing_ok=True)  # it is open: gone when it is closed, however this process ends
    try:
        yield group
    finally:
        if archive is not None:
            archive.close()


def _failed(url: str, error: Exception) -> DiffusionPolicyError:
    """Returns what to say of a failure of somebody's file system."""
    if isinstance(error, DiffusionPolicyError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageError(error.errno, f"{cache_folder()} is full, where {url} is fetched to; free some space")
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"data set {url} does not exist: nothing is there; correct the address")
    if isinstance(error, ValueError) and "rotocol not known" in str(error):
        return ConfigError(f"{url}: {error}; give a path, http://, s3:// or another protocol of fsspec")
    said = "" if isinstance(error, TimeoutError) else str(error).strip().partition("\n")[0]
    what = said or ("no answer in time" if isinstance(error, TimeoutError) else "no reason given")
    return RemoteError(
        f"{url} cannot be read: {type(error).__name__}: {what}; look at the address, the network and, for places that "
        f"need them, the credentials (in fsspec's own configuration)"
    )
