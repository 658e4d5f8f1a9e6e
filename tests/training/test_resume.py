"""A run that was stopped or killed ends with the weights of one that never was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
import yaml

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import CheckpointError, ConfigError, DataError, MissingFileError
from diffusion_policy.training.run import train
from tests.training.mirrored_points import MirroredPoints
from tests.training.runs import assert_same_run, weights

Make = Callable[..., dict[str, Any]]


START = "import sys, yaml; from diffusion_policy.training.run import train; train(yaml.safe_load(open(sys.argv[1])))"


def test_run_killed_at_any_moment_resumes_to_the_same_weights(tmp_path: Path, make_config: Make) -> None:
    """Killed three times at arbitrary moments, mid-step or mid-write, against a run never stopped."""
    steps = {"num_grad_steps": 240, "checkpoint_every": 20, "val_every": 60, "log_every": 7}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(make_config(tmp_path / "killed", **steps)))
    state = tmp_path / "killed" / "checkpoints" / "state.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for delay in (0.0, 0.1, 0.25):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(config)], stderr=subprocess.DEVNULL, env=environment
        )
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it was killed: make it longer"
        config.write_text(yaml.safe_dump({"resume": str(tmp_path / "killed")}))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train({"resume": str(tmp_path / "killed")})
        train(make_config(tmp_path / "whole", **steps))
    finally:
        torch.set_num_threads(threads)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_run_killed_before_its_first_checkpoint_resumes(tmp_path: Path, make_config: Make) -> None:
    train(make_config(tmp_path / "whole"))
    train(make_config(tmp_path / "killed", num_grad_steps=40))
    (tmp_path / "killed" / "checkpoints" / "state.pt").unlink()
    (tmp_path / "killed" / "policy.pt").unlink()
    train({"resume": str(tmp_path / "killed")})
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_run_interrupted_by_ctrl_c_saves_and_resumes(tmp_path: Path, make_config: Make) -> None:
    from diffusion_policy.training import loop as module

    class Interrupt:
        def after_step(self, loop: module.TrainingLoop) -> None:
            if loop.grad_step == 13:
                os.kill(os.getpid(), signal.SIGINT)

    original = module.TrainingLoop.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.TrainingLoop, "run", lambda self, hooks, i: original(self, [*hooks, Interrupt()], i))
        run = train(make_config(tmp_path / "stopped"))
    assert (run.finished, run.grad_steps) == (False, 13)
    assert train({"resume": str(run.out)}).finished
    train(make_config(tmp_path / "whole"))
    assert_same_run(run.out, tmp_path / "whole")


def test_run_resumed_with_more_steps_goes_on(tmp_path: Path, make_config: Make) -> None:
    run = train(make_config(tmp_path / "run"))
    longer = train({"resume": str(run.out), "training": {"num_grad_steps": 60}})
    assert longer.grad_steps == 60
    assert yaml.safe_load((run.out / "config.yaml").read_text())["training"]["num_grad_steps"] == 60


def test_run_resumed_when_all_is_done_says_so_and_changes_no_weight(
    tmp_path: Path, make_config: Make, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(make_config(tmp_path / "run"))
    before = weights(run.out)
    with caplog.at_level("INFO", logger="diffusion_policy"):
        again = train({"resume": str(run.out)})
    assert (again.finished, again.grad_steps) == (True, 40)
    assert f"{run.out}: all its 40 steps are done; for more: training.num_grad_steps=MORE" in caplog.messages
    assert all(torch.equal(value, before[name]) for name, value in weights(run.out).items())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"seed": 3}, "takes no other setting .* but got seed"),
        ({"training": {"batch_size": 3}}, "but got batch_size"),
        ({"training": {"num_grad_steps": 20}}, "can only grow on resume: expected more than 40, but got 20"),
    ],
)
def test_run_resume_refuses_other_settings(
    tmp_path: Path, make_config: Make, extra: dict[str, Any], message: str
) -> None:
    run = train(make_config(tmp_path / "run"))
    with pytest.raises(ConfigError, match=message):
        train({"resume": str(run.out), **extra})


def test_run_resume_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no run is there"):
        train({"resume": str(tmp_path)})


def test_run_on_mirrored_demonstrations_resumes_to_the_same_weights(tmp_path: Path, make_config: Make) -> None:
    gym.register("MirroredPoints-v0", MirroredPoints)
    try:
        for name, steps in (("whole", 20), ("parts", 10)):
            config = make_config(tmp_path / name, num_grad_steps=steps)
            config["env"], config["data"]["mirror"] = {"id": "MirroredPoints-v0"}, "auto"
            config["optim"]["lr_schedule"] = "constant"  # of 10 steps, cosine would be another
            assert train(config).policy.info.dataset["mirrored"] is True
        train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 20}})
    finally:
        del gym.registry["MirroredPoints-v0"]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(ConfigError, match="install or correct the environment"):  # it is gone now
        train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 30}})


def test_run_given_in_epochs_cannot_shrink_on_resume(tmp_path: Path, make_config: Make) -> None:
    run = train(make_config(tmp_path / "run", num_grad_steps=None, num_epochs=2))
    with pytest.raises(ConfigError, match=f"expected more than {run.grad_steps}, but got 1"):
        train({"resume": str(run.out), "training": {"num_grad_steps": 1}})


def test_run_resumed_on_changed_data_is_refused(tmp_path: Path, make_config: Make, dataset: Path) -> None:
    run = train(make_config(tmp_path / "run", num_grad_steps=2))
    with ReplayBuffer.open(dataset, mode="a") as buffer:
        buffer.add_episode(buffer.get_episode(0))
    with pytest.raises(DataError, match="has changed since"):
        train({"resume": str(run.out)})


def test_run_resumes_from_another_folder_and_without_its_init_file(
    tmp_path: Path, make_config: Make, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(make_config(tmp_path / "first", num_grad_steps=2))
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path / "second", num_grad_steps=2)
    train({**config, "dataset": dataset.name, "init": "first/policy.pt"})
    monkeypatch.chdir("/")
    (first.out / "policy.pt").unlink()
    assert train({"resume": str(tmp_path / "second"), "training": {"num_grad_steps": 3}}).grad_steps == 3


def test_state_of_another_format_is_refused(tmp_path: Path, make_config: Make) -> None:
    train(make_config(tmp_path / "run", num_grad_steps=10))
    state = tmp_path / "run" / "checkpoints" / "state.pt"
    content = torch.load(state, weights_only=True)
    del content["format"]
    torch.save(content, state)
    with pytest.raises(CheckpointError, match="has format 1"):
        train({"resume": str(tmp_path / "run"), "training": {"num_grad_steps": 20}})
