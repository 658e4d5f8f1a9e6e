"""The real lerobot, in its own environment, reads what we write, and we read what it writes: frame for frame.

LEROBOT_PYTHON names its interpreter (0.4.4: `python -m venv V && V/bin/pip install lerobot==0.4.4`, eight gigabytes).
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy import ReplayBuffer
from diffusion_policy.data.formats.convert import convert, translate
from diffusion_policy.versions import installed_versions
from tests.data.formats import lerobot_peer
from tests.data.formats.lerobot_v21 import build
from tests.data.formats.toys import LENGTHS, episodes, store

pa = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """Runs a command of lerobot_peer.py; prints what it said and both sides' versions."""
    interpreter = os.environ.get("LEROBOT_PYTHON")
    if not interpreter:
        pytest.skip("needs the interpreter of an environment with lerobot in LEROBOT_PYTHON")
    home = tmp_path_factory.mktemp("home")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline

    def run(*arguments: object) -> str:
        command = [interpreter, lerobot_peer.__file__, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
        told = done.stdout.strip()
        print(f"{arguments[0]}: {told}; here {installed_versions()['diffusion-policy']}, pyarrow {pa.__version__}")
        return told

    return run


def same_frames(theirs: np.lib.npyio.NpzFile, made: list[dict[str, np.ndarray]], pairs: dict[str, str]) -> None:
    """Asserts that their frames hold what our episodes do, {feature: key}."""
    for name, key in pairs.items():
        ours = np.concatenate([episode[key].reshape(len(episode[key]), *episode[key].shape[1:]) for episode in made])
        given = theirs[name]
        if ours.ndim == 4:
            given = np.rint(np.moveaxis(given, 1, -1) * 255)  # they give (C, H, W) in [0, 1]
        np.testing.assert_array_equal(given, ours)


def test_real_lerobot_opens_what_we_write_frame_for_frame(peer, tmp_path: Path) -> None:
    made = episodes()
    for i, episode in enumerate(made):
        episode["keypoints"] = np.linspace(i, 1, 8 * len(episode["action"])).reshape(-1, 4, 2).astype(np.float32)
    ours = store(tmp_path / "a.zarr", made, control_hz=20)
    translate(str(ours), tmp_path / "b", to="lerobot", task="push it")
    told = peer("dump", tmp_path / "b", tmp_path / "c.npz")
    assert told.startswith("lerobot ")
    pairs = {"observation.state": "agent_pos", "observation.images.front": "front", "action": "action"}
    pairs |= {"next.reward": "reward", "next.terminated": "terminated", "next.truncated": "truncated"}
    pairs |= {"next.agent_pos": "next_agent_pos"}
    with np.load(tmp_path / "c.npz") as theirs:
        same_frames(theirs, made, pairs)
        flat = np.concatenate([episode["keypoints"].reshape(-1, 8) for episode in made])
        np.testing.assert_array_equal(theirs["observation.environment_state"], flat)
        assert (theirs["fps"], theirs["num_episodes"]) == (20, 3)
        assert theirs["lengths"].tolist() == list(LENGTHS)
        assert set(theirs["task"].tolist()) == {"push it"}
        assert theirs["index"].tolist() == list(range(sum(LENGTHS)))
        np.testing.assert_allclose(theirs["timestamp"][:5], np.arange(5) / 20, atol=1e-6)
        np.testing.assert_allclose(theirs["stats/action/max"], np.max([e["action"].max(axis=0) for e in made], axis=0))
        assert theirs["stats/observation.images.front/mean"].shape == (3, 1, 1)


def test_real_lerobot_trains_from_what_we_write(peer, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = [
        {
            "agent_pos": rng.normal(size=(12, 4)).astype(np.float32),
            "front": rng.integers(0, 256, (12, 64, 64, 3)).astype(np.uint8),
            "action": rng.normal(size=(12, 2)).astype(np.float32),
        }
        for _ in range(2)
    ]
    translate(str(store(tmp_path / "a.zarr", made, control_hz=10)), tmp_path / "b", to="lerobot")
    assert peer("train", tmp_path / "b").count("loss") == 2


@pytest.mark.parametrize("command", ["make", "film", "film-av1"])
def test_we_open_what_the_real_lerobot_writes_frame_for_frame(peer, command: str, tmp_path: Path) -> None:
    peer(command, tmp_path / "a")
    size = lerobot_peer.SIZE if command == "make" else lerobot_peer.FILM_SIZE
    with convert(str(tmp_path / "a"), tmp_path / "b.zarr") as buffer:
        for i, made in enumerate(lerobot_peer.frames(size)):
            found = buffer.get_episode(i)
            np.testing.assert_array_equal(found["state"], made["observation.state"])
            np.testing.assert_array_equal(found["action"], made["action"])
            difference = np.abs(found["front"].astype(int) - made["observation.images.front"]).max()
            assert difference == 0 if command == "make" else difference < 10


def test_v21_as_we_build_it_is_what_the_real_lerobot_upgrades(peer, tmp_path: Path) -> None:
    convert(str(build(tmp_path / "toy")), tmp_path / "a.zarr")
    peer("upgrade", tmp_path / "toy")
    peer("dump", tmp_path / "toy", tmp_path / "c.npz")
    pairs = {name: name for name in ("observation.state", "observation.images.front", "action")}
    with np.load(tmp_path / "c.npz") as theirs:
        same_frames(theirs, lerobot_peer.frames(), pairs)
    convert(str(tmp_path / "toy"), tmp_path / "b.zarr")  # what it made of it: v3.0
    with ReplayBuffer.open(tmp_path / "a.zarr") as one, ReplayBuffer.open(tmp_path / "b.zarr") as other:
        assert one.digest() == other.digest()
