"""dp-collect with tasks of the user's own, and Ctrl-C."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from tests.cli.running import dp

TASK = """\
# @package _global_
dataset: mine.zarr
env: {id: "Reach-v0", kwargs: {}}
obs:
  observation: {type: low_dim, shape: [1], unit: m}
action: {shape: [1], low: -1.0, high: 1.0, unit: m, kind: absolute}
"""


class Reach(gym.Env):
    """Four steps, then success; Ctrl-C in the episode whose seed is `stops`."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    stops: int | None = None

    def reset(self, *, seed=None, options=None):
        self.seed, self.left = seed, 4
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.seed == Reach.stops:
            raise KeyboardInterrupt
        self.left -= 1
        return np.ones(1, np.float32), 0.0, self.left == 0, False, {"is_success": True}

    def make_expert(self, seed):
        return lambda obs, info: np.zeros(1, np.float32)


@pytest.fixture
def collect(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gym.registry, "Reach-v0", gym.envs.registration.EnvSpec("Reach-v0", entry_point=Reach))
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text(TASK)

    def run(*words: str):
        words = ("--config-dir=my_conf", "task=mine", *words)
        return dp("collect", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)

    return run


def test_collect_takes_a_task_that_says_nothing_of_collecting(collect, tmp_path: Path) -> None:
    done = collect("episodes=2", "out=demos.zarr")
    assert done.code == 0, done.err
    with ReplayBuffer.open(tmp_path / "demos.zarr") as buffer:
        assert buffer.num_episodes == 2


def test_collect_says_after_ctrl_c_what_it_has_and_how_to_go_on(collect, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Reach, "stops", 2)
    done = collect("episodes=3", "out=my demos.zarr")
    assert done.code == 130
    command = "dp-collect --config-dir=my_conf task=mine episodes=3 'out=my demos.zarr' resume=true"
    assert done.err.splitlines()[-1] == f"interrupted with 2 of 3 episodes kept in my demos.zarr; go on with: {command}"
    monkeypatch.setattr(Reach, "stops", None)
    done = collect("episodes=3", "out=my demos.zarr", "resume=true")
    assert done.code == 0, done.err
    assert "kept     3 of 3" in done.out


def test_collect_counts_what_lies_beside_a_zip(collect, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Reach, "stops", 0)
    assert "0 of 3 episodes kept in demos.zarr;" in collect("episodes=3", "out=demos.zarr.zip").err
