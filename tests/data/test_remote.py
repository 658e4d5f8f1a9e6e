"""Data sets behind addresses: the same as the local copy, one clear line for each fault, and nothing is written."""

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data import remote
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.formats.convert import convert
from diffusion_policy.data.raw_file import remembered_digest
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence
from diffusion_policy.errors import ConfigError, DataError, MissingFileError, RemoteError
from tests.data.remote_server import Told, served

fsspec = pytest.importorskip("fsspec")

OBS = {"pos": ObsField("low_dim", (2,)), "image": ObsField("rgb", (8, 8, 3))}
ACTION, HORIZONS = ActionSpec((2,)), Horizons(2, 2, 4)


def written(path: Path, zarr_format: int = 2) -> Path:
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(path, attrs={"provenance": {"made": "by hand"}}, zarr_format=zarr_format) as buffer:
        for _ in range(3):
            buffer.add_episode({
                "pos": rng.normal(size=(9, 2)).astype(np.float32), "action": rng.normal(size=(9, 2)),
                "image": rng.integers(0, 255, (9, 8, 8, 3), np.uint8),
            })  # fmt: skip
    return path


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return written(tmp_path / "demos.zarr")


@pytest.fixture
def server(tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with served(tmp_path) as told:
        yield told


def windows(buffer: ReplayBuffer, **options: object) -> WindowDataset:
    return WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, **options)  # type: ignore[arg-type]


def assert_same(url: str, local: Path, *, attrs: bool = True) -> None:
    """Keys, attributes, digests, computed and stored, and every window."""
    with ReplayBuffer.open(url) as there, ReplayBuffer.open(local) as here:
        assert there.keys() == here.keys()
        assert there.attrs == here.attrs or not attrs
        assert there.digest() == here.digest()
        assert there.digest(["pos"]) == here.digest(["pos"])
        assert there.verify()
        one, other = (windows(buffer) for buffer in (there, here))
        ids = np.arange(len(one))
        np.testing.assert_array_equal(one.batch(ids).action, other.batch(ids).action)
        for key in OBS:
            np.testing.assert_array_equal(one.batch(ids).obs[key], other.batch(ids).obs[key])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_data_set_behind_http_is_the_local_one(tmp_path: Path, server: Told, zarr_format: int) -> None:
    assert_same(f"{server.url}/of{zarr_format}.zarr", written(tmp_path / f"of{zarr_format}.zarr", zarr_format))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_server_that_lists_nothing_serves_consolidated_metadata(tmp_path: Path, server: Told, zarr_format: int) -> None:
    path = written(tmp_path / "kept.zarr", zarr_format)
    server.lists = False
    with pytest.raises(RemoteError, match=r"cannot be listed, and .* run zarr\.consolidate_metadata .* \.zip"):
        ReplayBuffer.open(f"{server.url}/kept.zarr")
    zarr.consolidate_metadata(str(path))
    assert_same(f"{server.url}/kept.zarr/", path)


def test_archive_behind_http_is_fetched_once_and_leaves_nothing(tmp_path: Path, server: Told, local: Path) -> None:
    with ReplayBuffer.open(local) as buffer:
        buffer.save(tmp_path / "demos.zip")
    server.lists = False
    assert_same(f"{server.url}/demos.zip", local)
    assert server.asked["/demos.zip"] == 1
    convert(f"{server.url}/demos.zip", tmp_path / "copy.zarr").close()
    assert server.asked["/demos.zip"] == 2
    assert_same(str(tmp_path / "copy.zarr"), local, attrs=False)
    assert list((tmp_path / "cache/diffusion_policy").iterdir()) == []


def test_data_set_in_memory_of_fsspec_is_the_local_one(tmp_path: Path, local: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(local), "/elsewhere/demos.zarr", recursive=True)
    try:
        assert_same("memory://elsewhere/demos.zarr", local)
    finally:
        memory.rm("/elsewhere", recursive=True)


def test_each_chunk_is_fetched_once_for_loading_and_digests(server: Told) -> None:
    with ReplayBuffer.open(f"{server.url}/demos.zarr") as buffer:
        windows(buffer)
        buffer.digest(["pos", "action"])
    chunks = {path: count for path, count in server.asked.items() if path.rpartition("/")[2][:1].isdigit()}
    assert {path.split("/")[3] for path in chunks} >= {"pos", "action", "image"}
    assert set(chunks.values()) == {1}


def test_chunks_are_fetched_again_where_too_much_would_stay(server: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_KEPT_BYTES", 0)
    with ReplayBuffer.open(f"{server.url}/demos.zarr") as buffer:
        windows(buffer)
        buffer.digest(["pos"])
    assert server.asked["/demos.zarr/data/pos/0.0"] == 2


def test_pictures_beyond_the_limit_lie_in_a_raw_file(tmp_path: Path, server: Told, local: Path) -> None:
    cache = tmp_path / "cache/diffusion_policy"
    with ReplayBuffer.open(f"{server.url}/demos.zarr") as there, ReplayBuffer.open(local) as here:
        moved = windows(there, residence=Residence("1KB"))
        ids = np.arange(len(moved))
        np.testing.assert_array_equal(moved.batch(ids).obs["image"], windows(here).batch(ids).obs["image"])
        assert remembered_digest(there, ["image"], cache) == here.digest(["image"])
    assert len(list(cache.glob("*.raw"))) == len(list(cache.glob("*.digest"))) == 1
    before = server.asked["/demos.zarr/data/image/0.0.0.0"]
    with ReplayBuffer.open(f"{server.url}/demos.zarr") as there:  # both are known by the stored digests
        windows(there, residence=Residence("1KB"))
        remembered_digest(there, ["image"], cache)
    assert server.asked["/demos.zarr/data/image/0.0.0.0"] == before


def test_pictures_that_no_digest_tells_from_others_are_not_kept(tmp_path: Path, server: Told, local: Path) -> None:
    import shutil

    shutil.rmtree(local / "meta/episode_digests")  # somebody else's data set
    cache = tmp_path / "cache/diffusion_policy"
    buffer = ReplayBuffer.open(f"{server.url}/demos.zarr")
    moved = windows(buffer, residence=Residence("1KB"))
    remembered_digest(buffer, ["image"], cache)
    assert len(list(cache.glob("*.raw"))) == 1
    assert list(cache.glob("*.digest")) == []
    buffer.close()
    del buffer
    assert list(cache.glob("*.raw")) == []
    with ReplayBuffer.open(local) as here:
        np.testing.assert_array_equal(moved.batch([3]).obs["image"], windows(here).batch([3]).obs["image"])


def test_faults_say_where_and_why_in_one_line(server: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(place: str, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message) as caught, ReplayBuffer.open(place) as buffer:
            buffer.read("pos")
        assert "\n" not in str(caught.value)

    url = f"{server.url}/demos.zarr"
    refused(
        f"{server.url}/other.zarr", MissingFileError, r"other\.zarr does not exist: neither zarr\.json nor \.zgroup"
    )
    refused(f"{server.url}/other.zip", MissingFileError, r"other\.zip does not exist: nothing is there")
    server.cut = "data/pos/0.0"
    refused(url, RemoteError, r"demos\.zarr/data/pos/0\.0 cannot be read: ClientPayloadError")
    server.cut, server.status = None, 403
    refused(url, RemoteError, r"cannot be read: ClientResponseError: 403, .*credentials \(in fsspec's own")
    server.status = None
    monkeypatch.setattr(remote, "SILENCE_S", 0.3)
    server.silent.clear()
    refused(url, RemoteError, "cannot be read: .*imeout")
    server.silent.set()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused(f"http://127.0.0.1:{port}/demos.zarr", RemoteError, "cannot be read: ClientConnectorError")
    refused("nobody://knows/demos.zarr", ConfigError, "Protocol not known: nobody; give a path, http://")
    for chain in ("", "simplecache::"):
        address = f"{chain}http://me:secret@127.0.0.1/demos.zarr"
        refused(address, ConfigError, r"http://\.\.\.@127\.0\.0\.1: a password does not")


def test_chunk_that_is_short_where_it_lies_is_a_damaged_one(server: Told, local: Path) -> None:
    chunk = local / "data/pos/0.0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with (
        ReplayBuffer.open(f"{server.url}/demos.zarr") as buffer,
        pytest.raises(DataError, match=r"demos\.zarr: data/pos cannot be decoded in \[0, 27\)"),
    ):
        buffer.read("pos")


def test_archive_that_is_none_is_called_by_its_address(tmp_path: Path, server: Told) -> None:
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(DataError, match=rf"^{server.url}/torn\.zip: expected a zarr folder or a \.zip"):
        ReplayBuffer.open(f"{server.url}/torn.zip")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "aiohttp", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"http://nowhere/demos\.zarr: .*pip install 'diffusion-policy\[remote\]'"):
        ReplayBuffer.open("http://nowhere/demos.zarr")


def test_nothing_is_written_to_an_address(tmp_path: Path, local: Path) -> None:
    message = r"path=memory://x\.zarr: expected a local path to write to; data sets at addresses are only read"
    with ReplayBuffer.open(local) as buffer:
        for write in (
            lambda: ReplayBuffer.create("memory://x.zarr"),
            lambda: ReplayBuffer.open("memory://x.zarr", mode="a"),
            lambda: buffer.save("memory://x.zarr"),
        ):
            with pytest.raises(ConfigError, match=message):
                write()
