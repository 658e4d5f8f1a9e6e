"""A benchmark goes on where it was interrupted, whatever interrupted it."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from diffusion_policy.benchmark import cell as cell_module
from diffusion_policy.benchmark.cell import best_checkpoint, cell_file, run_cell
from diffusion_policy.benchmark.results import Results
from diffusion_policy.benchmark.run import run_suite
from diffusion_policy.benchmark.stopwatch import Stopwatch
from diffusion_policy.benchmark.suite import Suite
from diffusion_policy.cli.compose import compose_config
from diffusion_policy.errors import ConfigError, MissingFileError
from diffusion_policy.policies.library import load_policy

PLAIN: dict[str, Any] = {
    "tasks": {"detour": {"overrides": ["task=detour"], "collect": 6}},
    "methods": {"diffusion": ["denoiser.down_dims=[16,32]"], "mlp": ["policy=mlp"]},
    "seeds": [0],
    "overrides": ["preset=fast", "training.num_grad_steps=6", "optim.warmup_steps=1", "data.mirror=false"],
    "judging": {"episodes": 3, "protocols": ["last", "best"], "validations": 2, "validation_episodes": 2},
}


def compose(command: str, words: Sequence[str]) -> dict[str, Any]:
    return compose_config(command, *words)


def test_suite_leaves_a_file_for_each_cell_that_says_how_it_was_made(tmp_path: Path) -> None:
    suite = Suite.from_plain(PLAIN)
    assert run_suite(suite, tmp_path, compose)
    results = Results.read(tmp_path)
    assert [each.cell for each in results.cells] == suite.cells()
    figures = results.cells[1].figures
    assert figures["words"][-2:] == ["policy=mlp", "seed=0"]
    assert figures["config"]["policy"]["name"] == "mlp"
    assert (figures["training"]["grad_steps"], figures["training"]["sessions"]) == (6, 1)
    assert figures["training"]["rollout_s"] > 0
    assert figures["evaluations"]["last"]["per_episode"]["seed"] == [100_000, 100_001, 100_002]
    assert figures["evaluations"]["best"]["checkpoint"].startswith("best_step")
    assert figures["evaluations"]["best"]["grad_steps"] in (3, 6)
    assert figures["dataset"]["digest"]
    for count in (5, 7):
        tasks = {"detour": {"overrides": ["task=detour"], "collect": count}}
        other = Suite.from_plain({**PLAIN, "tasks": tasks, "seeds": [1]})
        with pytest.raises(ConfigError, match=f"has 6 episodes, but now collect={count} is asked for"):
            run_suite(other, tmp_path, compose)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    assert run_suite(suite, tmp_path, compose)  # nothing is left to do
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()} == before


def test_cell_begins_with_the_policy_of_the_cell_before_it(tmp_path: Path) -> None:
    methods = {**PLAIN["methods"], "again": ["denoiser.down_dims=[16,32]", "optim.lr=1e-30", "optim.weight_decay=0.0"]}
    suite = Suite.from_plain(
        {**PLAIN, "methods": methods, "begins": {"again": "diffusion"}, "judging": {"episodes": 2}}
    )
    with pytest.raises(MissingFileError, match="detour-again-s0 begins with the policy of detour-diffusion-s0"):
        run_suite(suite, tmp_path, compose, only=["again"])
    assert run_suite(suite, tmp_path, compose, only=["diffusion", "again"])
    weights = [load_policy(tmp_path / "runs" / f"detour-{name}-s0" / "policy.pt") for name in ("diffusion", "again")]
    first, second = (policy.state_dict() for policy in weights)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    figures = [json.loads(cell_file(tmp_path, cell).read_text()) for cell in suite.cells() if cell.method != "mlp"]
    assert "init=detour-diffusion-s0" in figures[1]["words"]
    columns = [each["evaluations"]["last"]["per_episode"]["max_reward"] for each in figures]
    assert columns[0] == columns[1]


def test_interrupted_cell_goes_on_with_its_run_and_keeps_its_time(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def interrupted(settings: dict[str, Any]) -> SimpleNamespace:
        asked.append(settings)
        folder = Path(settings.get("out") or settings["resume"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").touch()
        time.sleep(0.02)
        return SimpleNamespace(finished=False)

    monkeypatch.setattr(cell_module, "train", interrupted)
    suite = Suite.from_plain(PLAIN)
    cell = suite.cells()[0]
    for _ in range(2):
        assert not run_cell(cell, suite, tmp_path, "detour.zarr", compose)
    assert not cell_file(tmp_path, cell).exists()
    assert asked[0]["dataset"] == "detour.zarr"
    assert asked[0]["training"]["rollout_every"] == 3  # twice in six steps
    assert asked[0]["training"]["rollout_seed"] == 50_000
    assert asked[1] == {"resume": str(tmp_path / "runs" / cell.name)}
    times = Stopwatch(tmp_path / "times" / f"{cell.name}.json").read()
    assert times["sessions"] == 2
    assert times["wall_s"] > 0.04
    assert times["complete"]


def test_finished_cell_with_other_settings_is_refused_not_reported(tmp_path: Path, monkeypatch) -> None:
    suite = Suite.from_plain({**PLAIN, "methods": {"mlp": ["policy=mlp"]}})
    (cell,) = suite.cells()
    file = cell_file(tmp_path, cell)
    file.parent.mkdir()
    judging = json.loads(json.dumps(asdict(suite.judging)))
    stored = {"format": 1, "task": cell.task, "method": cell.method, "seed": cell.seed, "words": suite.words(cell)}
    file.write_text(json.dumps({**stored, "judging": judging}))
    assert run_suite(suite, tmp_path, compose)
    more = Suite.from_plain(
        {**PLAIN, "methods": {"mlp": ["policy=mlp"]}, "judging": {**PLAIN["judging"], "episodes": 9}}
    )
    with pytest.raises(ConfigError, match=r"with other settings: judging\.episodes: 3 there, 9 now; take"):
        run_suite(more, tmp_path, compose)
    longer = Suite.from_plain({**PLAIN, "methods": {"mlp": ["policy=mlp", "optim.lr=1e-4"]}})
    with pytest.raises(ConfigError, match=r"with other settings: nothing there, optim\.lr=1e-4 now; take"):
        run_suite(longer, tmp_path, compose)


def test_interrupted_cell_with_other_settings_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cell_module, "train", lambda each: SimpleNamespace(finished=False))
    suite = Suite.from_plain(PLAIN)
    assert not run_cell(suite.cells()[0], suite, tmp_path, "detour.zarr", compose)
    other = Suite.from_plain({**PLAIN, "overrides": ["preset=best"]})
    with pytest.raises(ConfigError, match=r"is there with other settings: .* there, preset=best now"):
        run_cell(suite.cells()[0], other, tmp_path, "detour.zarr", compose)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("polciy=mlp", "polciy"),
        ("optim.lr=fast", "optim.lr: expected a number"),
        ("training.batch_size=0", "batch_size"),
        ("training.best_by=luck", "best_by"),
        ("data.val_ratio=2", "val_ratio"),
        ("denoiser.kernel_size=wide", "denoiser unet1d"),
        ("horizons.pred_horizon=1", "horizon"),
    ],
)
def test_mistake_in_the_last_cell_shows_before_the_first_begins(word: str, said: str, tmp_path: Path) -> None:
    suite = Suite.from_plain({**PLAIN, "methods": {"mlp": ["policy=mlp"], "wrong": [word]}})
    with pytest.raises(ConfigError, match=f"suite cell detour-wrong-s0: .*{said}"):
        run_suite(suite, tmp_path / "out", compose)
    assert not (tmp_path / "out").exists()


def test_best_of_a_run_in_epochs_is_refused(tmp_path: Path) -> None:
    suite = Suite.from_plain({**PLAIN, "methods": {"paper": ["training.num_grad_steps=null", "training.num_epochs=1"]}})
    with pytest.raises(ConfigError, match=r"best needs training\.num_grad_steps"):
        run_suite(suite, tmp_path / "out", compose)


def test_files_to_publish_name_no_machine(tmp_path: Path) -> None:
    suite = Suite.from_plain({**PLAIN, "methods": {"mlp": ["policy=mlp"]}, "judging": {"episodes": 2}})
    assert run_suite(suite, tmp_path, compose)
    assert str(tmp_path) not in cell_file(tmp_path, suite.cells()[0]).read_text()


def test_run_that_was_killed_before_it_began_is_begun_again(tmp_path: Path, monkeypatch) -> None:
    suite = Suite.from_plain(PLAIN)
    cell = suite.cells()[0]
    (tmp_path / "runs" / cell.name / "checkpoints").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(cell_module, "train", lambda each: asked.append(each) or SimpleNamespace(finished=False))
    run_cell(cell, suite, tmp_path, "detour.zarr", compose)
    assert "resume" not in asked[0]
    assert not (tmp_path / "runs" / cell.name).exists()


def test_stopwatch_tells_of_a_session_that_was_killed(tmp_path: Path) -> None:
    watch = Stopwatch(tmp_path / "times" / "a.json")
    assert watch.read() == {"wall_s": 0.0, "cpu_s": 0.0, "sessions": 0, "complete": True}
    with pytest.raises(RuntimeError), watch.running():
        raise RuntimeError
    assert watch.read()["complete"]
    file = tmp_path / "times" / "a.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "running": True}))  # what SIGKILL leaves
    assert not watch.read()["complete"]
    with watch.running():
        pass
    assert not watch.read()["complete"]  # for ever
    assert watch.read()["sessions"] == 2


def test_best_checkpoint_is_that_of_the_highest_reward(tmp_path: Path) -> None:
    assert best_checkpoint(tmp_path) is None
    for name in (
        "best_step0000010_reward0.900.pt",
        "best_step0000020_reward0.950.pt",
        "best_step0000030_reward0.950.pt",
    ):
        (tmp_path / name).touch()
    assert best_checkpoint(tmp_path) == tmp_path / "best_step0000020_reward0.950.pt"


def test_names_that_choose_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"only: no task, method or cell is called bet; .*cells like detour-diffusion-s0"
    ):
        run_suite(Suite.from_plain(PLAIN), tmp_path / "out", compose, ["bet", "mlp"])
    assert not (tmp_path / "out").exists()
