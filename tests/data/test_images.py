"""Pictures from a data set: the forms that are read, what is refused, and those that do not fit into memory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy import ReplayBuffer
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.images import image_blocks
from diffusion_policy.data.raw_file import raw_file, remembered_digest
from diffusion_policy.data.residence import Residence, group_free_bytes, readable
from diffusion_policy.data.rows import FileRows
from diffusion_policy.errors import ConfigError, DataError, StorageError

FRONT = ObsField("rgb", (8, 10, 3), source="img")
TWO_CHANNELS = ObsField("rgb", (8, 10, 2), source="img[0:2]")
OBS = {"front": FRONT, "state": ObsField("low_dim", (5,))}
ACTION, HORIZONS = ActionSpec((2,)), Horizons(2, 3, 6)


def store(path: Path | None, images: np.ndarray) -> ReplayBuffer:
    """Two episodes, of a third and two thirds of the images."""
    buffer = ReplayBuffer.create(path)
    first = len(images) // 3
    for part in (slice(0, first), slice(first, None)):
        count = len(images[part])
        state = np.arange(5.0 * count, dtype=np.float32).reshape(count, 5)
        buffer.add_episode({"img": images[part], "state": state, "action": state[:, :2]})
    return buffer


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 8, 10, 3), dtype=np.uint8)


def read(buffer: ReplayBuffer, field: ObsField = FRONT) -> np.ndarray:
    return np.concatenate(list(image_blocks("front", field, buffer, np.arange(buffer.num_episodes))))


@pytest.mark.parametrize(
    ("stored", "source"),
    [
        (lambda x: x, "img"),
        (lambda x: np.moveaxis(x, -1, 1), "img"),
        (lambda x: x.astype(np.float32), "img"),
        (lambda x: np.moveaxis(x, -1, 1).astype(np.float64), "img"),
        (lambda x: x.astype(np.float32) / 255, "img*255"),
        (lambda x: np.concatenate([x, x[..., :1]], axis=-1), "img[0:3]"),
    ],
    ids=["uint8", "channels-first", "float", "channels-first-float", "unit-float", "rgbd"],
)
def test_images_are_read_from_the_forms_people_store(images: np.ndarray, stored, source: str) -> None:
    buffer = store(None, np.ascontiguousarray(stored(images)))
    np.testing.assert_array_equal(read(buffer, ObsField("rgb", (8, 10, 3), source=source)), images)


def test_images_in_unit_range_or_of_another_size_are_refused_by_name(images: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"must hold images 0-255, .* up to 1; .*set obs\.front\.source: \"img\*255\""):
        read(store(None, (images / 255).astype(np.float32)))
    with pytest.raises(DataError, match=r"must hold images 0-255, but got float32 in \[-1, 1\]"):
        read(store(None, (images / 127.5 - 1).astype(np.float32)))
    with pytest.raises(DataError, match=r"obs\.front must have shape \(96, 96, 3\).*'img' has \(8, 10, 3\)"):
        read(store(None, images), ObsField("rgb", (96, 96, 3), source="img"))
    with pytest.raises(DataError, match=r"obs\.wrist needs data 'wrist', but the data set has: action, img, state"):
        list(image_blocks("wrist", ObsField("rgb", (8, 10, 3)), store(None, images), np.arange(2)))


def test_pictures_beyond_the_limit_come_from_a_file_and_are_the_same(tmp_path: Path, images: np.ndarray) -> None:
    buffer = store(tmp_path / "a.zarr", images)
    near = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS)
    counted: list[int] = []
    residence = Residence(1000, tmp_path / "cache", counted.append)
    far = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, residence=residence)
    assert sum(counted) == 30
    ids = torch.randperm(len(near), generator=torch.Generator().manual_seed(0))
    assert torch.equal(near.batch(ids).obs["front"], far.batch(ids).obs["front"])
    one = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, residence=residence, episodes=[1])
    assert sum(counted) == 30, "decoded again"
    second = np.flatnonzero(near.index.episode_of(np.arange(len(near))) == 1)[:3]
    assert torch.equal(one.batch(np.arange(3)).obs["front"], near.batch(second).obs["front"])
    with pytest.raises(DataError, match=r"obs\.front is not in memory"):
        far.all_obs("front")


def test_raw_file_follows_the_data(tmp_path: Path, images: np.ndarray) -> None:
    def path() -> Path:
        with ReplayBuffer.open(tmp_path / "a.zarr") as buffer:
            return raw_file("front", FRONT, buffer, tmp_path / "cache", lambda steps: None)

    store(tmp_path / "a.zarr", images).close()
    before = path()
    assert path() == before
    assert before.stat().st_size == images.nbytes
    with ReplayBuffer.open(tmp_path / "a.zarr", mode="a") as buffer:
        buffer.add_episode(buffer.get_episode(0))
    after = path()
    assert after != before
    assert after.read_bytes() == np.concatenate([images, images[:10]]).tobytes()
    assert sorted(tmp_path.glob("cache/*")) == sorted([before, after]), "nothing half-written"


def test_raw_files_stay_unless_nobody_opened_them_for_a_month(tmp_path: Path, images: np.ndarray) -> None:
    def files(name: str, field: ObsField = FRONT) -> set[Path]:
        with ReplayBuffer.open(tmp_path / name) as buffer:
            raw_file("front", field, buffer, tmp_path / "cache", lambda steps: None)
        return set(tmp_path.glob("cache/*.raw"))

    for name in ("a.zarr", "b.zarr"):
        store(tmp_path / name, images).close()
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    (first,) = files("a.zarr")
    assert files("link.zarr") == {first}, "the same data by another name"
    os.utime(first, (0, 0))
    files("a.zarr")
    assert len(files("b.zarr")) == 2, "it was opened today"
    os.utime(first, (0, 0))
    assert first not in files("b.zarr", TWO_CHANNELS)
    assert len(files("b.zarr")) == 2


def test_raw_file_of_another_data_set_in_the_same_place_is_another(tmp_path: Path, images: np.ndarray) -> None:
    """Archives and careful copies keep sizes and times of modification."""
    paths = []
    for content in (images, 255 - images):
        shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
        store(tmp_path / "a.zarr", content).close()
        for file in (tmp_path / "a.zarr").rglob("*"):
            os.utime(file, (0, 0))
        with ReplayBuffer.open(tmp_path / "a.zarr") as buffer:
            paths.append(raw_file("front", FRONT, buffer, tmp_path / "cache", lambda steps: None))
            assert paths[-1].read_bytes() == content.tobytes()
            digest = remembered_digest(buffer, ["img"], tmp_path / "cache")
            assert digest == remembered_digest(buffer, ["img"], tmp_path / "cache") == buffer.digest(["img"])
    assert paths[0] != paths[1]


def test_remembered_digest_is_not_computed_again(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "a.zarr", images).close()
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    digest = remembered_digest(buffer, ["img"], tmp_path / "cache")
    monkeypatch.setattr(ReplayBuffer, "digest", lambda *_: pytest.fail("computed again"))
    assert remembered_digest(ReplayBuffer.open(tmp_path / "a.zarr"), ["img"], tmp_path / "cache") == digest


def test_pictures_of_a_buffer_in_memory_stay_there(images: np.ndarray, tmp_path: Path) -> None:
    data = WindowDataset.from_buffer(store(None, images), OBS, ACTION, HORIZONS, residence=Residence(0, tmp_path))
    assert data.all_obs("front").shape == images.shape
    assert not list(tmp_path.iterdir())


def test_mirrored_pictures_from_a_file_come_in_batches_of_any_kind(tmp_path: Path, images: np.ndarray) -> None:
    def mirror(obs, action):
        return {**obs, "front": obs["front"][:, :, ::-1], "state": -obs["state"]}, -action

    buffer = store(tmp_path / "a.zarr", images)
    options = {"residence": Residence(0, tmp_path / "cache")}
    far = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, **options).with_mirrored(mirror)
    near = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS).with_mirrored(mirror)
    half = len(near) // 2
    for ids in ([0], [half], [0, half], [half, half + 1, 3]):
        seen = far.batch(np.array(ids)).obs["front"]
        assert torch.equal(seen, near.batch(np.array(ids)).obs["front"])
        for one, index in zip(seen, ids, strict=True):
            original = near.batch(np.array([index % half])).obs["front"][0]
            assert torch.equal(one, original.flip(2) if index >= half else original)


def test_own_name_wins_but_its_part_and_scale_count(images: np.ndarray) -> None:
    buffer = ReplayBuffer.create()
    rgba, action = np.concatenate([images, images[..., :1]], axis=-1), np.zeros((30, 2), np.float32)
    buffer.add_episode({"front": images.astype(np.float32) / 255, "side": rgba, "action": action})
    for name, source in (("front", "front*255"), ("side", "side[0:3]")):
        field = ObsField("rgb", (8, 10, 3), source=source)
        np.testing.assert_array_equal(np.concatenate(list(image_blocks(name, field, buffer, np.arange(1)))), images)


def test_dark_floats_and_grey_pictures_are_pictures(images: np.ndarray) -> None:
    dark = images.astype(np.float32)
    dark[:20] = 1.0  # covered at first
    np.testing.assert_array_equal(read(store(None, dark)), dark.astype(np.uint8))
    np.testing.assert_array_equal(read(store(None, np.zeros((30, 8, 10, 3)))), 0)
    grey = read(store(None, images[..., 0]), ObsField("rgb", (8, 10, 1), source="img"))
    np.testing.assert_array_equal(grey, images[..., :1])


def test_raw_file_that_was_cut_short_is_made_again_or_reported(tmp_path: Path, images: np.ndarray) -> None:
    buffer = store(tmp_path / "a.zarr", images)
    path = raw_file("front", FRONT, buffer, tmp_path / "cache", lambda steps: None)
    rows = FileRows(path, FRONT.shape, np.arange(30))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match="cut short; delete it and start again"):
        rows.take(torch.tensor([29]))
    assert raw_file("front", FRONT, buffer, tmp_path / "cache", lambda steps: None).stat().st_size == images.nbytes


def test_raw_file_of_bad_pictures_is_not_left_behind(tmp_path: Path, images: np.ndarray) -> None:
    buffer = store(tmp_path / "a.zarr", (images / 255).astype(np.float32))
    with pytest.raises(DataError, match="0-255"):
        raw_file("front", FRONT, buffer, tmp_path / "cache", lambda steps: None)
    assert not list((tmp_path / "cache").iterdir())


def test_residence_moves_the_largest_pictures_until_the_rest_fits() -> None:
    sizes = {"state": 500, "wrist": 2000, "front": 4000}
    pictures = {"wrist", "front"}
    assert Residence(7000).to_file(sizes, pictures) == []
    assert Residence("3KB").to_file(sizes, pictures) == ["front"]
    assert Residence(100).to_file(sizes, pictures) == ["front", "wrist"]  # numbers always stay
    assert Residence("auto").limit_bytes(free=1000) == 500
    assert Residence("auto").limit_bytes() > 0


NEWER = ("memory.max", "memory.current", "memory.stat")
OLDER = ("memory/job/memory.limit_in_bytes", "memory/job/memory.usage_in_bytes", "memory/job/memory.stat")


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        (dict(zip(NEWER, ("900", "700", "anon 1\ninactive_file 50\n"), strict=True)), "0::/\n", [250]),
        (dict(zip(NEWER, ("max", "700", ""), strict=True)), "0::/\n", []),
        (dict(zip([f"a/b/{name}" for name in NEWER], ("900", "950", ""), strict=True)), "0::/a/b\n", [0]),
        (dict(zip(OLDER, ("800", "100", "total_inactive_file 7\n"), strict=True)), "4:cpu,memory:/job\n", [707]),
        (dict(zip([f"job/{name}" for name in NEWER], ("900", "100", ""), strict=True)), "0::/job/step/task_0\n", [800]),
        ({f"{OLDER[0]}": "800", OLDER[1]: "100"}, "4:memory:/job\n", [700]),
        ({}, "odd\n", []),
        ({}, "", []),
    ],
)
def test_free_memory_is_that_of_the_control_group(tmp_path: Path, files, own: str, expected: list[int]) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert group_free_bytes(tmp_path / "groups", tmp_path / "own") == expected


@pytest.mark.parametrize("limit", ["lots", "-3GB", "4 apples"])
def test_residence_refuses_what_is_no_size(limit: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.memory_limit must be auto, a size like 4GB"):
        Residence(limit)


def test_sizes_are_written_as_people_do() -> None:
    assert [readable(n) for n in (12, 709_171_200, 14.2e9)] == ["12 B", "709 MB", "14.2 GB"]


PEAK = """
import resource, sys
import numpy as np, torch
from diffusion_policy.data.rows import FileRows
rows = FileRows(__import__("pathlib").Path(sys.argv[1]), (96, 96, 3), np.arange(int(sys.argv[2])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
generator = torch.Generator().manual_seed(0)
for _ in range(100):
    rows.take(torch.randint(int(sys.argv[2]), (64,), generator=generator))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_file_rows_add_no_memory_that_grows_with_the_file(tmp_path: Path) -> None:
    """180 MB are read here; mapped pages would all count as resident."""
    count = 8000
    with (tmp_path / "frames.raw").open("wb") as file:
        file.truncate(count * 96 * 96 * 3)
    arguments = [sys.executable, "-c", PEAK, str(tmp_path / "frames.raw"), str(count)]
    added = int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    assert added < 30_000, f"{added} KiB"
