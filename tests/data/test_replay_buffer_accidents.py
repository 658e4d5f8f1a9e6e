"""Replay buffers after killed writers and full disks."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.data import store
from diffusion_policy.errors import StorageError
from tests.data.filled import MakeEpisode, assert_holds, filled


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
