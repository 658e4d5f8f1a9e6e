"""dp-benchmark with a suite and a task of the user's own."""

import json
import shlex
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.benchmark import run as run_module
from tests.benchmark.test_results import result
from tests.cli.running import dp

TASK = """\
# @package _global_
dataset: null
env: {id: "Hover-v0", kwargs: {}}
obs:
  height: {type: low_dim, shape: [1], unit: m}
action: {shape: [1], low: -1.0, high: 1.0, unit: m, kind: absolute}
"""
SUITE = """\
tasks:
  hover: {overrides: [task=hover]}
methods:
  diffusion: []
  mlp: [policy=mlp]
seeds: [0]
overrides: [preset=fast, training.num_grad_steps=5]
judging: {episodes: 2}
"""


class Hover(gym.Env):
    """No expert."""

    observation_space = gym.spaces.Dict({"height": gym.spaces.Box(-1, 1, (1,))})
    action_space = gym.spaces.Box(-1, 1, (1,))


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(gym.registry, "Hover-v0", gym.envs.registration.EnvSpec("Hover-v0", entry_point=Hover))
    for group, text in (("task", TASK), ("suite", SUITE)):
        (tmp_path / "my_conf" / group).mkdir(parents=True)
        (tmp_path / "my_conf" / group / "hover.yaml").write_text(text)

    def run(*words: str):
        words = ("--config-dir=my_conf", "suite=hover", *words)
        return dp("benchmark", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)

    return run


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Data sets that cells were trained on; each training is interrupted."""
    seen: list[str] = []
    monkeypatch.setattr(run_module, "run_cell", lambda *given: seen.append(given[3]))
    return seen


def test_interrupted_benchmark_says_the_words_that_go_on(benchmark, asked) -> None:
    words = ["+suite.tasks.hover.dataset=my data.zarr", "out=runs/a b"]
    done = benchmark(*words)
    assert done.code == 130
    again = shlex.split(done.err.partition("go on with: ")[2])
    assert again == ["dp-benchmark", "--config-dir=my_conf", "suite=hover", *words]


def test_task_without_demonstrations_is_named_before_the_first_cell(benchmark, asked, tmp_path: Path) -> None:
    done = benchmark("out=runs/a")
    assert done.code == 2
    assert "suite.tasks.hover.dataset: expected a path, got nothing, and Hover-v0 has no make_expert" in done.err
    assert not asked
    assert not (tmp_path / "runs").exists()


def test_demonstrations_come_from_the_suite_or_else_from_the_task(benchmark, asked, tmp_path: Path) -> None:
    task = tmp_path / "my_conf" / "task" / "hover.yaml"
    task.write_text(TASK.replace("dataset: null", "dataset: of_the_task.zarr"))
    benchmark("out=runs/a")
    benchmark("out=runs/a", "+suite.tasks.hover.dataset=of_the_suite.zarr")
    assert asked == ["of_the_task.zarr", "of_the_suite.zarr"]
    assert "has no make_expert" in benchmark("out=runs/a", "+suite.tasks.hover.collect=5").err  # the expert is asked


def test_cell_below_the_stored_one_is_named(benchmark, tmp_path: Path) -> None:
    for folder, successes in (("now", 10), ("stored", 50)):
        cell = result("hover", "mlp", 0, np.arange(60) < successes)
        (tmp_path / folder / "cells").mkdir(parents=True)
        (tmp_path / folder / "cells" / "a.json").write_text(json.dumps(cell.figures))
    fell = benchmark("out=now", "report=true", "against=stored")
    assert fell.code == 1
    assert "fell below: hover-mlp-s0: success 0.17" in fell.out
    rose = benchmark("out=stored", "report=true", "against=now")
    assert rose.code == 0
    assert "against  now: no cell's interval lies wholly below its stored one" in rose.out
