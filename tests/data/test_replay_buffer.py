"""Replay buffers: what goes in comes out, from any place, after any accident."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.data import store
from diffusion_policy.errors import DataError, OutputExistsError
from tests.data.filled import MakeEpisode, assert_holds, filled


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("where", ["memory", "folder", "zip", "appended"])
def test_replay_buffer_returns_what_was_put_in(where, zarr_format, tmp_path: Path, make_episode: MakeEpisode) -> None:
    place = None if where == "memory" else tmp_path / "demos.zarr"
    buffer = filled(place, make_episode, (4, 7) if where == "appended" else (4, 7, 1), zarr_format=zarr_format)
    if where == "folder":
        buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    if where == "appended":
        buffer.close()
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
    buffer.close()
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


# --- many episodes in one write --------------------------------------------------------------------------------


def test_episodes_added_together_equal_those_added_one_by_one(tmp_path: Path, make_episode: MakeEpisode) -> None:
    lengths = (4, 7, 1, 2, 3)
    together = ReplayBuffer.create(tmp_path / "demos.zarr")
    episodes = [make_episode(steps, seed) for seed, steps in enumerate(lengths)]
    together.add_episodes(episodes[:2])
    together.add_episodes([])
    together.add_episodes(episodes[2:])
    assert_holds(together, make_episode, lengths)
    assert_holds(ReplayBuffer.open(tmp_path / "demos.zarr"), make_episode, lengths)
    assert together.digest() == filled(None, make_episode, lengths).digest()


def test_many_short_episodes_fill_several_chunks_of_ends(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr")
    buffer.add_episodes([{"action": np.full((2, 1), i)} for i in range(1500)])
    buffer.add_episodes([{"action": np.full((2, 1), i)} for i in range(1500, 3000)])
    opened = ReplayBuffer.open(tmp_path / "demos.zarr")
    assert opened.episode_ends.tolist() == list(range(2, 6002, 2))
    np.testing.assert_array_equal(opened["action"][:, 0], np.repeat(np.arange(3000), 2))
    assert opened.verify()


def test_one_bad_episode_of_several_is_refused_with_the_others(make_episode: MakeEpisode) -> None:
    buffer = ReplayBuffer.create()
    bad = make_episode(3, 1)
    bad["action"][1, 0] = np.nan
    with pytest.raises(DataError, match="'action' must be finite"):
        buffer.add_episodes([make_episode(4, 0), bad])
    assert buffer.num_episodes == 0
    with pytest.raises(DataError, match="must have the keys"):
        buffer.add_episodes([make_episode(4, 0), {"action": np.zeros((3, 2))}])
    assert buffer.num_episodes == 0
