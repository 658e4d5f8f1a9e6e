"""A run computes the same in one piece, in several, and on several processes; one that loses a process resumes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.training.metrics import read_metrics
from diffusion_policy.training.ranks import Ranks, ranks_from_environment
from diffusion_policy.training.run import train

Make = Callable[..., dict[str, Any]]

STEPS = {"num_grad_steps": 20, "log_every": 1, "val_every": 0, "checkpoint_every": 0}
ENSEMBLES: dict[str, dict[str, Any]] = {"whole": {}, "pieces": {"micro_batch_size": 4}}
START = """
import os, sys, yaml
from pathlib import Path
from diffusion_policy.training.run import train
Path(sys.argv[1]).with_name(f"pid{os.environ['RANK']}").write_text(str(os.getpid()))
train(yaml.safe_load(open(sys.argv[1])))
"""


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "train"]


def together(config: dict[str, Any], folder: Path, size: int = 2) -> subprocess.Popen[str]:
    """Starts a run on several processes."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "start.py").write_text(START)
    words = ["--standalone", f"--nproc-per-node={size}", str(folder / "start.py"), str(folder / "config.yaml")]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(("size", "rows", "largest"), [(1, 10, None), (2, 7, None), (3, 10, 2), (4, 3, 5), (2, 1, 1)])
def test_pieces_of_all_ranks_are_the_batch_in_order(size: int, rows: int, largest: int | None) -> None:
    pieces = [piece for rank in range(size) for piece in Ranks(rank, size).pieces(rows, largest)]
    covered = [row for piece in pieces for row in range(piece.start, piece.stop)]
    assert covered == list(range(rows))
    assert all(0 < piece.stop - piece.start <= (largest or rows) for piece in pieces)


@pytest.mark.parametrize("micro", [1, 5, 15])
def test_batch_in_pieces_gives_the_losses_of_the_whole(tmp_path: Path, make_config: Make, micro: int) -> None:
    train(make_config(tmp_path / "whole", **STEPS))
    train(make_config(tmp_path / "pieces", **STEPS, micro_batch_size=micro))
    whole, pieces = losses(tmp_path / "whole"), losses(tmp_path / "pieces")
    assert len(whole) == 20
    assert pieces == pytest.approx(whole, abs=1e-5)
    assert pieces[0] == pytest.approx(whole[0], abs=1e-6)


def test_members_of_an_ensemble_learn_from_the_same_rows_in_pieces(tmp_path: Path, make_config: Make) -> None:
    configs = {name: make_config(tmp_path / name, **STEPS, **more) for name, more in ENSEMBLES.items()}
    for config in configs.values():
        config["denoiser"] = {"name": "ensemble", "member": config["denoiser"], "members": 3}
        train(config)
    weights = [DiffusionPolicy.load(tmp_path / name / "policy.pt").state_dict() for name in configs]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
    assert losses(tmp_path / "pieces") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


@pytest.mark.parametrize(("rows", "largest"), [(16, 4), (16, None), (2, 1), (7, 100)])
def test_pieces_begin_at_groups_of_rows(rows: int, largest: int | None) -> None:
    pieces = [piece for rank in range(2) for piece in Ranks(rank, 2).pieces(rows, largest, 3)]
    assert [row for piece in pieces for row in range(piece.start, piece.stop)] == list(range(rows))
    assert all(piece.start % 3 == 0 for piece in pieces)


def test_alone_nothing_is_exchanged() -> None:
    parameter = nn.Parameter(torch.ones(3))
    assert Ranks().sum_gradients([parameter], (0.5, 1.0)) == [0.5, 1.0]
    assert parameter.grad is None


def test_half_an_environment_of_torchrun_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun"), ranks_from_environment():
        pass
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match="cuda:1"), ranks_from_environment("cuda:1"):
        pass


def test_interrupt_of_several_processes_only_notes_what_torchrun_repeats() -> None:
    with Interrupt(patient=True) as interrupt:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert interrupt.requested


def test_two_processes_give_the_losses_of_one(tmp_path: Path, make_config: Make) -> None:
    train(make_config(tmp_path / "one", **STEPS))
    process = together(make_config(tmp_path / "two", **STEPS), tmp_path / "start")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(two) == 20
    assert two == pytest.approx(one, abs=1e-4)
    assert two != one, "two processes computed the very same numbers: did they share the batch?"


def test_refusal_of_the_first_process_ends_the_others_and_writes_nothing(tmp_path: Path, make_config: Make) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine").touch()
    process = together(make_config(tmp_path / "two", **STEPS), tmp_path / "start")
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "OutputExistsError" in said
    assert [file.name for file in (tmp_path / "two").iterdir()] == ["mine"]


def test_run_that_loses_a_process_ends_and_resumes(tmp_path: Path, make_config: Make) -> None:
    steps = {**STEPS, "num_grad_steps": 4000, "checkpoint_every": 10}
    out, folder = tmp_path / "two", tmp_path / "start"
    process = together(make_config(out, **steps), folder)
    state = out / "checkpoints" / "state.pt"
    limit = time.monotonic() + 90
    while not state.exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.05)
    os.kill(int((folder / "pid1").read_text()), signal.SIGKILL)
    said, _ = process.communicate(timeout=90)
    assert process.returncode != 0
    assert state.is_file(), said
    reached = torch.load(state, weights_only=True)["loop"]["grad_step"]
    assert 10 <= reached < 4000
    settings = yaml.safe_load((out / "config.yaml").read_text())
    settings["training"]["num_grad_steps"] = reached + 20
    (out / "config.yaml").write_text(yaml.safe_dump(settings))
    process = together({"resume": str(out)}, folder)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert torch.load(state, weights_only=True)["loop"]["grad_step"] == reached + 20
    assert len(losses(out)) == reached + 20


def test_ctrl_c_stops_all_processes_after_the_same_step_and_saves(tmp_path: Path, make_config: Make) -> None:
    steps = {**STEPS, "num_grad_steps": 100_000, "checkpoint_every": 0}
    out, folder = tmp_path / "two", tmp_path / "start"
    process = together(make_config(out, **steps), folder)
    metrics = out / "metrics.jsonl"
    limit = time.monotonic() + 90
    while (not metrics.exists() or not metrics.stat().st_size) and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    saved = torch.load(out / "checkpoints" / "state.pt", weights_only=True)["loop"]
    assert 0 < saved["grad_step"] < 100_000
    assert len(losses(out)) == saved["grad_step"]
