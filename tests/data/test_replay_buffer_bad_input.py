"""What a replay buffer refuses, and in which words."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.errors import DataError, MissingFileError
from tests.data.filled import MakeEpisode, assert_holds, filled


def test_open_refuses_what_is_no_data_set(tmp_path: Path, make_episode: MakeEpisode) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        ReplayBuffer.open(tmp_path / "nothing.zarr")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"expected a zarr folder or a \.zip.*of other formats dp-convert makes a zarr"):
        ReplayBuffer.open(tmp_path / "notes.txt")
    filled(tmp_path / "demos.zarr", make_episode).save(tmp_path / "demos.zip")
    with pytest.raises(DataError, match=r"not a zarr.*give .*demos\.zarr"):
        ReplayBuffer.open(tmp_path)
    (tmp_path / "recordings").mkdir()
    with pytest.raises(DataError, match=r"not a zarr.*or first dp-convert it"):
        ReplayBuffer.open(tmp_path / "recordings")
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
