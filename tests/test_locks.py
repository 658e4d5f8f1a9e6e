"""One writer at a time; for runs see training/test_run.py."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy import ReplayBuffer
from diffusion_policy.errors import OutputExistsError
from diffusion_policy.locks import FolderLock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no folder locks there")

EPISODE = {"action": np.zeros((4, 2), np.float32)}


def test_folder_lock_keeps_a_second_writer_out_until_released(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "run"), pytest.raises(OutputExistsError, match=r"run .* is being written"):
        FolderLock(tmp_path, "run")
    FolderLock(tmp_path, "run").release()
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_folder_lock_ends_with_a_process_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from diffusion_policy.locks import FolderLock;"
        "lock = FolderLock(pathlib.Path(sys.argv[1]), 'run'); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputExistsError):
        FolderLock(tmp_path, "run")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    FolderLock(tmp_path, "run").release()


def test_two_writers_never_share_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "demos.zarr"
    with ReplayBuffer.create(path) as writer:
        writer.add_episode(EPISODE)
        with pytest.raises(OutputExistsError, match="being written"):
            ReplayBuffer.open(path, mode="a")
        with pytest.raises(OutputExistsError, match="being written"):
            ReplayBuffer.create(path, overwrite=True)
        assert ReplayBuffer.open(path).num_episodes == 1  # reading meanwhile is fine
    with ReplayBuffer.open(path, mode="a") as later:
        later.add_episode(EPISODE)
        assert later.num_episodes == 2


def test_a_data_set_that_is_being_written_is_not_replaced(tmp_path: Path) -> None:
    with ReplayBuffer.create() as other, ReplayBuffer.create(tmp_path / "demos.zarr") as writer:
        other.add_episode(EPISODE)
        with pytest.raises(OutputExistsError, match="being written"):
            other.save(tmp_path / "demos.zarr", overwrite=True)
        writer.add_episode(EPISODE)
    assert ReplayBuffer.open(tmp_path / "demos.zarr").verify()


def test_folder_lock_notices_that_the_folder_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    opened = os.open

    def open_then_replace(path, *rest):
        handle = opened(path, *rest)
        folder.rename(tmp_path / "old")
        folder.mkdir()
        return handle

    monkeypatch.setattr("diffusion_policy.locks.os.open", open_then_replace)
    with pytest.raises(OutputExistsError):
        FolderLock(folder, "run")


def test_a_forked_child_that_ends_does_not_unlock_for_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\n"
        "from diffusion_policy.locks import FolderLock\n"
        "lock = FolderLock(pathlib.Path(sys.argv[1]), 'run')\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "try: FolderLock(pathlib.Path(sys.argv[1]), 'run')\n"
        "except FileExistsError: print('still held')"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert said.stdout == "still held\n"


def test_a_writer_that_failed_to_open_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "demos.zarr"
    with ReplayBuffer.create(path) as writer:
        writer.add_episode(EPISODE)
    (path / "meta" / "episode_ends" / ".zarray").write_text("{")
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot read the arrays"):
            ReplayBuffer.open(path, mode="a")


def test_a_forgotten_writer_lets_go(tmp_path: Path) -> None:
    writer = ReplayBuffer.create(tmp_path / "demos.zarr")
    writer.add_episode(EPISODE)
    del writer
    deadline = time.monotonic() + 5
    while True:  # the garbage collector decides when
        try:
            return ReplayBuffer.open(tmp_path / "demos.zarr", mode="a").close()
        except OutputExistsError:
            assert time.monotonic() < deadline
