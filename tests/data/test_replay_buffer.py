"""Replay buffers: what goes in comes out, from any place, after any accident."""

import errno
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.data import store
from diffusion_policy.errors import DataError, MissingFileError, OutputExistsError, StorageError

Episode = dict[str, np.ndarray]
MakeEpisode = Callable[..., Episode]


def filled(
    place: Path | None, make_episode: MakeEpisode, lengths: tuple[int, ...] = (4, 7, 1), **settings
) -> ReplayBuffer:
    buffer = ReplayBuffer.create(place, **settings)
    for seed, steps in enumerate(lengths):
        buffer.add_episode(make_episode(steps, seed))
    return buffer


def assert_holds(buffer: ReplayBuffer, make_episode: MakeEpisode, lengths: tuple[int, ...] = (4, 7, 1)) -> None:
    assert buffer.episode_ends.tolist() == np.cumsum(lengths).tolist()
    for seed, steps in enumerate(lengths):
        expected, found = make_episode(steps, seed), buffer.get_episode(seed)
        assert list(found) == sorted(expected)
        for key, values in expected.items():
            assert found[key].dtype == values.dtype
            np.testing.assert_array_equal(found[key], values)
    assert buffer.verify()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("where", ["memory", "folder", "zip", "appended"])
def test_replay_buffer_returns_what_was_put_in(where, zarr_format, tmp_path: Path, make_episode: MakeEpisode) -> None:
    place = None if where == "memory" else tmp_path / "demos.zarr"
    buffer = filled(place, make_episode, (4, 7) if where == "appended" else (4, 7, 1), zarr_format=zarr_format)
    if where == "folder":
        buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    if where == "appended":
        ReplayBuffer.open(tmp_path / "demos.zarr", "a").add_episode(make_episode(1, 2))
        buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    if where == "zip":
        buffer.save(tmp_path / "demos.zarr.zip")
        buffer = ReplayBuffer.open(tmp_path / "demos.zarr.zip")
    with buffer:
        assert_holds(buffer, make_episode)
        assert buffer.num_steps == 12
        assert buffer.shape("img") == (8, 8, 3)
        np.testing.assert_array_equal(buffer["action"][4:11], buffer.read("action", 4, 11))


def test_replay_buffer_layout_is_the_fields(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(tmp_path / "demos.zarr", make_episode)
    group = zarr.open_group(tmp_path / "demos.zarr", mode="r")
    assert group.metadata.zarr_format == 2
    assert group["data/img"].shape == (12, 8, 8, 3)
    assert group["meta/episode_ends"].dtype == np.int64
    assert group["meta/episode_ends"][:].tolist() == [4, 11, 12]
    assert group["data/action"].compressors[0].codec_id == "blosc"


def test_replay_buffer_keeps_attributes(tmp_path: Path, make_episode: MakeEpisode) -> None:
    buffer = filled(tmp_path / "demos.zarr", make_episode, attrs={"renderer": "mujoco", "provenance": {"seed": 3}})
    buffer.update_attrs({"episodes": 3})
    buffer.save(tmp_path / "copy.zip")
    with ReplayBuffer.open(tmp_path / "copy.zip") as copy:
        assert copy.attrs == {"renderer": "mujoco", "provenance": {"seed": 3}, "episodes": 3}


# --- digests ---------------------------------------------------------------------------------------------------


def test_digest_is_the_same_wherever_the_data_lie(tmp_path: Path, make_episode: MakeEpisode) -> None:
    buffer = filled(tmp_path / "demos.zarr", make_episode, zarr_format=3)
    buffer.save(tmp_path / "demos.zip")
    with ReplayBuffer.open(tmp_path / "demos.zip") as archive:
        assert archive.digest() == buffer.digest() == filled(None, make_episode).digest()


def test_digest_changes_with_every_episode_and_key(make_episode: MakeEpisode) -> None:
    buffer, digests = ReplayBuffer.create(), []
    for seed in range(3):
        digests.append(buffer.digest())
        buffer.add_episode(make_episode(3, seed))
    digests += [buffer.digest(), buffer.digest(["action"]), buffer.digest(["action", "state"])]
    assert len(set(digests)) == len(digests)
    assert buffer.digest(["state", "action"]) == buffer.digest(["action", "state"])


def test_digest_of_foreign_files_is_computed_and_equals_ours(tmp_path: Path, make_episode: MakeEpisode) -> None:
    ours = filled(None, make_episode)
    group = zarr.open_group(tmp_path / "foreign.zarr", mode="w", zarr_format=2)
    for key in ("action", "img", "state"):
        group.create_array(f"data/{key}", data=ours[key], chunks=(5, *ours.shape(key)))
    group.create_array("meta/episode_ends", data=ours.episode_ends)
    foreign = ReplayBuffer.open(tmp_path / "foreign.zarr", "a")
    assert foreign.digest() == ours.digest()
    assert not foreign.verify()
    foreign.add_episode(make_episode(2, 9))
    ours.add_episode(make_episode(2, 9))
    assert ReplayBuffer.open(tmp_path / "foreign.zarr").digest() == ours.digest()


def test_verify_names_the_episode_that_changed(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(tmp_path / "demos.zarr", make_episode)
    zarr.open_group(tmp_path / "demos.zarr", mode="r+")["data/action"][5, 0] = 77.0
    with pytest.raises(DataError, match="episode 1 does not match the digest"):
        ReplayBuffer.open(tmp_path / "demos.zarr").verify()


# --- accidents -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longer", [["action"], ["action", "img", "state"], []], ids=["one", "all", "ends only"])
def test_open_repairs_an_interrupted_append(longer: list[str], tmp_path: Path, make_episode: MakeEpisode) -> None:
    place = tmp_path / "demos.zarr"
    filled(place, make_episode)
    group = zarr.open_group(place, mode="r+")
    for key in longer:
        array = group[f"data/{key}"]
        array.resize((20, *array.shape[1:]))
        array[12:] = 9
    if not longer:
        group["meta/episode_ends"].resize((4,))  # grown, not yet filled
    (place / "data/action/0.123.partial").write_bytes(b"half a chunk")
    (place / "data/.zattrs.123.partial").write_bytes(b"{")

    reader = ReplayBuffer.open(place)
    assert reader.hidden_steps == (8 if longer else 0)
    assert_holds(reader, make_episode)
    assert zarr.open_group(place, mode="r")["data/action"].shape[0] == (20 if longer else 12), "reading wrote"

    writer = ReplayBuffer.open(place, "a")
    assert_holds(writer, make_episode)
    assert zarr.open_group(place, mode="r")["data/action"].shape[0] == 12
    assert zarr.open_group(place, mode="r")["meta/episode_ends"].shape == (3,)
    assert not list(place.rglob("*.partial"))
    writer.add_episode(make_episode(5, 3))
    assert_holds(ReplayBuffer.open(place), make_episode, (4, 7, 1, 5))


def test_open_forgets_a_first_append_that_was_interrupted(tmp_path: Path, make_episode: MakeEpisode) -> None:
    place = tmp_path / "demos.zarr"
    ReplayBuffer.create(place)
    zarr.open_group(place, mode="r+").create_array("data/other", data=np.ones((3, 2)))
    buffer = ReplayBuffer.open(place, "a")
    assert (buffer.num_steps, buffer.keys()) == (0, [])
    buffer.add_episode(make_episode(4, 0))
    assert_holds(ReplayBuffer.open(place), make_episode, (4,))


def test_append_is_not_hidden_by_consolidated_metadata(tmp_path: Path, make_episode: MakeEpisode) -> None:
    place = tmp_path / "demos.zarr"
    filled(place, make_episode)
    zarr.consolidate_metadata(place)
    stale = (place / ".zmetadata").read_bytes()
    ReplayBuffer.open(place, "a").add_episode(make_episode(5, 3))
    assert zarr.open_group(place, mode="r")["data/action"].shape == (17, 2), "stale for other readers"
    (place / ".zmetadata").write_bytes(stale)  # as after an append by a program that leaves it
    assert_holds(ReplayBuffer.open(place), make_episode, (4, 7, 1, 5))


_ENDLESS_WRITER = """
import sys, numpy as np
from diffusion_policy import ReplayBuffer
buffer = ReplayBuffer.open(sys.argv[1], "a")
while True:
    i = buffer.num_episodes
    steps = 3 + i % 5
    buffer.add_episode({"a": np.full((steps, 40), i, np.float32), "b": np.full((steps, 64, 64), i % 251, np.uint8)})
    print(i, flush=True)
"""


def test_replay_buffer_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    place = tmp_path / "demos.zarr"
    ReplayBuffer.create(place)
    promised = 0
    for delay in (0.0, 0.004, 0.011):  # seconds into some append
        with subprocess.Popen([sys.executable, "-c", _ENDLESS_WRITER, str(place)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(4):
                promised = int(writer.stdout.readline()) + 1
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        buffer = ReplayBuffer.open(place)
        assert buffer.num_episodes >= promised
        assert buffer.verify()
        for i in range(buffer.num_episodes):
            assert (buffer.get_episode(i)["a"] == i).all()


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3, 4, 6])
def test_full_disk_keeps_what_was_there(fails_at, tmp_path, make_episode, monkeypatch) -> None:
    place = tmp_path / "demos.zarr"
    buffer = filled(place, make_episode)
    write, calls = store.LocalStore.set, []

    async def set_until_full(self, key, value):
        calls.append(key)
        if len(calls) > fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        await write(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(store.LocalStore, "set", set_until_full)
        with pytest.raises(StorageError, match=r"No space left on device.*intact") as caught:
            buffer.add_episode(make_episode(5, 3))
    assert caught.value.errno == errno.ENOSPC
    assert_holds(buffer, make_episode)
    assert_holds(ReplayBuffer.open(place), make_episode)
    buffer.add_episode(make_episode(2, 3))  # shorter than what the failure left behind
    assert_holds(ReplayBuffer.open(place), make_episode, (4, 7, 1, 2))


def test_save_on_a_full_disk_leaves_nothing_behind(tmp_path, make_episode, monkeypatch) -> None:
    buffer = filled(None, make_episode)

    async def full(self, key, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.LocalStore, "set", full)
    with pytest.raises(StorageError):
        buffer.save(tmp_path / "copy.zip")
    assert list(tmp_path.iterdir()) == []


# --- copies ----------------------------------------------------------------------------------------------------


def test_save_as_zip_is_deterministic(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(None, make_episode, attrs={"a": 1}).save(tmp_path / "a.zip")
    filled(tmp_path / "b.zarr", make_episode, attrs={"a": 1}).save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_save_copies_some_keys_and_their_digest(tmp_path: Path, make_episode: MakeEpisode) -> None:
    buffer = filled(None, make_episode)
    buffer.save(tmp_path / "small.zarr", keys=["action", "state"])
    small = ReplayBuffer.open(tmp_path / "small.zarr")
    assert small.keys() == ["action", "state"]
    assert small.digest() == buffer.digest(["action", "state"])
    assert small.verify()
    with pytest.raises(DataError, match="no data 'imgs', it has: action, img, state"):
        buffer.save(tmp_path / "other.zarr", keys=["imgs"])


def test_save_and_create_never_overwrite_unasked(tmp_path: Path, make_episode: MakeEpisode) -> None:
    buffer = filled(tmp_path / "demos.zarr", make_episode)
    for name in ("demos.zarr", "demos.zip"):
        if name == "demos.zip":
            buffer.save(tmp_path / name)
        with pytest.raises(OutputExistsError):
            buffer.save(tmp_path / name)
    with pytest.raises(OutputExistsError):
        ReplayBuffer.create(tmp_path / "demos.zarr")
    buffer.save(tmp_path / "demos.zip", overwrite=True)
    assert_holds(ReplayBuffer.open(tmp_path / "demos.zarr"), make_episode)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["demos.zarr", "demos.zip"]
    assert ReplayBuffer.create(tmp_path / "demos.zarr", overwrite=True).num_episodes == 0


def test_overwrite_spares_folders_that_are_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="not a zarr"):
        ReplayBuffer.create(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_open_finds_the_data_set_inside_an_archive(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(tmp_path / "outer" / "pusht" / "demos.zarr", make_episode)
    store.pack_zip(tmp_path / "outer", tmp_path / "pusht.zip")
    with ReplayBuffer.open(tmp_path / "pusht.zip") as buffer:
        assert_holds(buffer, make_episode)


# --- bad input -------------------------------------------------------------------------------------------------


def test_open_refuses_what_is_no_data_set(tmp_path: Path, make_episode: MakeEpisode) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        ReplayBuffer.open(tmp_path / "nothing.zarr")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"expected a zarr folder or a \.zip"):
        ReplayBuffer.open(tmp_path / "notes.txt")
    filled(tmp_path / "demos.zarr", make_episode).save(tmp_path / "demos.zip")
    with pytest.raises(DataError, match=r"not a zarr.*give .*demos\.zarr"):
        ReplayBuffer.open(tmp_path)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "demos.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="cut short"):
        ReplayBuffer.open(tmp_path / "cut.zip")
    with pytest.raises(DataError, match="expected a folder to append to"):
        ReplayBuffer.open(tmp_path / "demos.zip", "a")
    with pytest.raises(DataError, match="would leave unreadable"):
        ReplayBuffer.create(tmp_path / "new.zip")


def test_open_refuses_a_zarr_without_episodes(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=2)
    with pytest.raises(DataError, match="data/ and meta/"):
        ReplayBuffer.open(tmp_path / "other.zarr")
    group.create_group("data")
    group.create_array("meta/ends", data=np.array([3]))
    with pytest.raises(DataError, match="expected the array meta/episode_ends, but meta/ holds ends"):
        ReplayBuffer.open(tmp_path / "other.zarr")


def test_open_refuses_contradictions(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(tmp_path / "demos.zarr", make_episode)
    group = zarr.open_group(tmp_path / "demos.zarr", mode="r+")
    group["meta/episode_ends"][:] = [4, 3, 12]
    with pytest.raises(DataError, match="entry 1 is 3 after 4"):
        ReplayBuffer.open(tmp_path / "demos.zarr")
    group["meta/episode_ends"][:] = [4, 11, 12]
    group["data/state"].resize((9, 5))
    with pytest.raises(DataError, match=r"data/state must have the 12 steps .* but has 9 \(episode 1 is incomplete\)"):
        ReplayBuffer.open(tmp_path / "demos.zarr")


def test_read_names_a_damaged_chunk(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(tmp_path / "demos.zarr", make_episode)
    (tmp_path / "demos.zarr/data/action/0.0").write_bytes(b"not blosc")
    buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    with pytest.raises(DataError, match=r"data/action cannot be decoded"):
        buffer["action"]
    assert buffer["state"].shape == (12, 5), "other keys stay readable"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e | {"action": e["action"][:2]}, "same number of steps.*action 2"),
        (lambda e: {key: values[:0] for key, values in e.items()}, "at least 1"),
        (lambda e: {"action": e["action"]}, "must have the keys action, img, state, but got action"),
        (lambda e: e | {"action": e["action"].astype(np.float64)}, "must be float32 .*but got float64"),
        (lambda e: e | {"action": np.ones((3, 3), np.float32)}, r"of shape \(T, 2\) .* of shape \(3, 3\)"),
        (lambda e: e | {"action": np.array([[0, 0], [0, np.nan], [0, 0]], np.float32)}, "step 1 of this episode"),
        (lambda e: e | {"action": np.array(["left"] * 3)}, "must hold numbers"),
        (lambda e: {}, "but got none"),
    ],
    ids=["length", "empty", "keys", "dtype", "shape", "nan", "text", "nothing"],
)
def test_add_episode_refuses_and_writes_nothing(change, message, make_episode: MakeEpisode) -> None:
    buffer = filled(None, make_episode)
    with pytest.raises(DataError, match=message):
        buffer.add_episode(change(make_episode(3, 5)))
    assert_holds(buffer, make_episode)


def test_reader_refuses_to_write(tmp_path: Path, make_episode: MakeEpisode) -> None:
    filled(tmp_path / "demos.zarr", make_episode)
    reader = ReplayBuffer.open(tmp_path / "demos.zarr")
    with pytest.raises(DataError, match="mode='a'"):
        reader.add_episode(make_episode(3))
    with pytest.raises(DataError, match="mode='a'"):
        reader.update_attrs({"a": 1})


def test_read_refuses_ranges_and_names_outside(make_episode: MakeEpisode) -> None:
    buffer = filled(None, make_episode)
    with pytest.raises(DataError, match=r"within \[0, 12\], but got \[3, 13\)"):
        buffer.read("action", 3, 13)
    with pytest.raises(DataError, match="no data 'actions', it has: action, img, state"):
        buffer["actions"]
    with pytest.raises(DataError, match=r"an episode in \[0, 3\), but got 3"):
        buffer.get_episode(3)


# --- real data -------------------------------------------------------------------------------------------------


def test_human_demonstrations_open_without_reading_images(human_pusht: Path, monkeypatch) -> None:
    read = []
    get = store.LocalStore.get

    async def listening_get(self, key, *args, **settings):
        read.append(key)
        return await get(self, key, *args, **settings)

    monkeypatch.setattr(store.LocalStore, "get", listening_get)
    buffer = ReplayBuffer.open(human_pusht)
    assert (buffer.num_episodes, buffer.num_steps) == (206, 25650)
    assert buffer["action"].shape == (25650, 2)
    assert buffer.digest(["action", "state"]) == buffer.digest(["state", "action"])
    chunks = [key for key in read if key.startswith("data/") and key.rsplit("/", 1)[1][0].isdigit()]
    assert {key.split("/")[1] for key in chunks} == {"action", "state"}
