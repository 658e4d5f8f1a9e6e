"""dp-online as a person runs it."""

import json
import signal
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, of the extra online")

from diffusion_policy.online import refit
from diffusion_policy.online.measures import Measures
from tests.cli.running import dp
from tests.online.test_run import TINY


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    def command(*words: str):
        return dp("online", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)

    return command


def test_command_learns_and_says_where_everything_is(run, tmp_path: Path) -> None:
    done = run(*TINY, "out=runs/a")
    assert done.code == 0, done.err
    assert "return   -" in done.out
    assert "agent    runs/a/sac.zip\nresults  runs/a/results.json\ncurves   runs/a/curves.png" in done.out
    assert "online 240/240" in done.err
    again = run(*TINY, "out=runs/a")
    assert again.code == 2
    assert again.err == "error: out=runs/a already holds something; choose another folder\n"


class Pictures(gym.Env):
    """Shows pictures."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = gym.spaces.Box(-1, 1, (1,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("env=Pendulum-v9",), "unknown environment 'Pendulum-v9'; close to it: Pendulum-v1"),
        (("env=CartPole-v1",), "env=CartPole-v1: expected continuous actions (Box), but got Discrete(2)"),
        (("env=Pictures-v0",), "env=Pictures-v0: expected observations of numbers, but got pictures of shape"),
        (("synthetic_ratio=1",), "synthetic_ratio must be in [0, 1), the share of synthetic rows in a batch"),
        (("synthetic_ratio=-0.1",), "synthetic_ratio must be in [0, 1)"),
        (("update_ratio=0",), "update_ratio must be 1 or more, but got 0"),
        (("update_ratio=1.5",), "update_ratio: expected a whole number, but got 1.5"),
        (("refit_evry=5",), "unknown setting 'refit_evry', did you mean refit_every?"),
        (("sac.gamma=2",), "sac: expected lr above 0, gamma in [0, 1] and tau in (0, 1], but got"),
        (("evaluation.episodes=0",), "evaluation.episodes must be 1 or more, but got 0"),
        (("+resume=true",), "unknown setting"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(words, message: str, run, tmp_path: Path, monkeypatch) -> None:
    spec = gym.envs.registration.EnvSpec("Pictures-v0", entry_point=Pictures)
    monkeypatch.setitem(gym.registry, "Pictures-v0", spec)
    done = run(*TINY, "out=runs/a", *words)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_missing_extra_is_one_line_that_names_it(run, monkeypatch) -> None:
    for name in [each for each in sys.modules if each.startswith("diffusion_policy.online")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    done = run(*TINY, "out=runs/a")
    assert done.code == 2
    assert "needs stable-baselines3" in done.err
    assert "pip install 'diffusion-policy[online]'" in done.err
    assert done.err.count("\n") == 1


def stopped(run, tmp_path: Path) -> dict:
    done = run(*TINY, "out=runs/a")
    assert done.code == 130
    assert "what is there is saved, and cannot be gone on with" in done.err
    assert (tmp_path / "runs/a/sac.zip").is_file()
    assert (tmp_path / "runs/a/curves.png").is_file()
    found = json.loads((tmp_path / "runs/a/results.json").read_text())
    assert not found["finished"]
    return found


def test_ctrl_c_between_steps_keeps_what_is_there(run, tmp_path: Path, monkeypatch) -> None:
    on_step = Measures._on_step

    def interrupted(self: Measures) -> bool:
        if self.num_timesteps == 130:
            signal.raise_signal(signal.SIGINT)
        return on_step(self)

    monkeypatch.setattr(Measures, "_on_step", interrupted)
    found = stopped(run, tmp_path)
    assert found["env_steps"] == 130
    assert [each["env_step"] for each in found["evaluations"]] == [0, 100]


@pytest.mark.parametrize("where", ["fit", "sample"])
def test_ctrl_c_in_a_refit_keeps_what_is_there(where: str, run, tmp_path: Path, monkeypatch) -> None:
    told = Measures.progress

    def interrupted(self: Measures, what: str, done: int, of: int) -> None:
        if what == where and done in (0, 3):
            signal.raise_signal(signal.SIGINT)
        told(self, what, done, of)

    monkeypatch.setattr(Measures, "progress", interrupted)
    monkeypatch.setattr(refit, "ROWS", 32)
    found = stopped(run, tmp_path)
    assert found["env_steps"] == 100
    assert found["refreshes"] == []


def test_help_shows_examples_and_says_that_runs_are_not_resumed(run) -> None:
    done = run("--help")
    assert done.code == 0
    assert "dp-online env=Pendulum-v1 out=runs/pendulum" in done.out
    assert "There is no resume=" in done.out
    assert "online: fast, paper" in done.out
