"""Several runs by one command: in this process, and through a launcher's processes, as on a cluster."""

from pathlib import Path

import pytest

from tests.cli.running import script

TINY = (
    "task=pusht", "training.num_grad_steps=3", "training.val_every=0", "training.batch_size=4", "data.episodes=3",
    "data.mirror=false", "denoiser.down_dims=[8,16]", "encoder.hidden_dims=[]", "denoiser.embed_dim=8",
    "logger.tensorboard=false", "optim.warmup_steps=0",
)  # fmt: skip


def test_multirun_makes_a_run_of_each_choice(tmp_path: Path) -> None:
    done = script("train", "--multirun", "seed=0,1", "out=s${seed}", *TINY, folder=tmp_path)
    assert done.code == 0, done.err
    assert all((tmp_path / f"s{seed}" / "policy.pt").is_file() for seed in (0, 1))


def test_launcher_runs_jobs_in_processes_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ("--multirun", "hydra/launcher=submitit_local", "seed=0,1", "out=s${seed}")
    done = script("train", *words, *TINY, folder=tmp_path)
    assert done.code == 0, done.err
    assert all((tmp_path / f"s{seed}" / "policy.pt").is_file() for seed in (0, 1))
    logs = list((tmp_path / "runs" / ".submitit").glob("*/*_log.out"))
    assert len(logs) == 2
    assert ".submitit" in done.err


def test_job_that_fails_in_a_process_of_its_own_fails_the_command(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ("--multirun", "hydra/launcher=submitit_local", "seed=0,-1", "out=s${seed}")
    done = script("train", *words, *TINY, folder=tmp_path)
    assert done.code == 2
    assert "error: seed must be a whole number" in done.err
    assert "Traceback" not in done.err
    assert (tmp_path / "s0" / "policy.pt").is_file()
