"""A run: learns, leaves its files, resumes exactly, stops cleanly, refuses what it should."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, MissingFileError, NonFiniteLossError, OutputExistsError
from diffusion_policy.locks import FolderLock
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.training.metrics import read_metrics
from diffusion_policy.training.run import train
from tests.training.mirrored_points import MirroredPoints

Make = Callable[..., dict[str, Any]]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return DiffusionPolicy.load(path / "policy.pt").state_dict()


def assert_same_run(a: Path, b: Path) -> None:
    """Weights bit for bit, and the same measurements (but for speed) at the same steps."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)

    def measured(path: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k != "samples_per_s"} for r in read_metrics(path / "metrics.jsonl")]

    assert measured(a) == measured(b)


def test_run_learns_and_leaves_its_files(tmp_path: Path, make_config: Make) -> None:
    run = train(make_config(tmp_path / "run", num_grad_steps=150, val_every=50))
    assert run.finished
    records = read_metrics(run.out / "metrics.jsonl")
    losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    validation = [r for r in records if r["kind"] == "validation"]
    assert [r["grad_step"] for r in validation] == [50, 100, 150]
    assert validation[-1]["action_rmse"] < validation[0]["action_rmse"]
    assert {p.name for p in run.out.iterdir()} == {
        "policy.pt", "metrics.jsonl", "curves.png", "config.yaml", "checkpoints"
    }  # fmt: skip
    info = DiffusionPolicy.load(run.out / "policy.pt").info
    assert info.training == {"grad_steps": 150, "seeds": [1]}
    assert info.env["id"] == "nowhere:None-v0"
    assert len(info.dataset["digest"]) == 64


def test_run_same_seed_same_weights_other_seed_others(tmp_path: Path, make_config: Make) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train({**make_config(tmp_path / name, num_grad_steps=10), "seed": seed})
    assert_same_run(tmp_path / "a", tmp_path / "b")
    c = weights(tmp_path / "c")
    assert not torch.equal(weights(tmp_path / "a")["denoiser.final_conv.1.weight"], c["denoiser.final_conv.1.weight"])


def test_run_saves_each_checkpoint_once(tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusion_policy.training import hooks

    steps: list[int] = []
    original = hooks.save_atomically

    def counted(content: dict[str, Any], path: Path) -> None:
        steps.append(content["loop"]["grad_step"])
        original(content, path)

    monkeypatch.setattr(hooks, "save_atomically", counted)
    train(make_config(tmp_path / "run"))
    assert steps == [10, 20, 30, 40]


def test_run_saves_the_average_not_the_last_weights(tmp_path: Path, make_config: Make) -> None:
    run = train(make_config(tmp_path / "run"))
    state = torch.load(run.out / "checkpoints" / "state.pt", weights_only=True)
    name = "denoiser.final_conv.1.weight"
    assert not torch.equal(weights(run.out)[name], state["loop"]["model"][name])


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


def test_run_in_a_folder_with_results_is_refused_and_changes_nothing(tmp_path: Path, make_config: Make) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="already holds something"):
        train(make_config(tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["precious.txt"]


def test_run_that_another_process_writes_is_refused_and_left_alone(tmp_path: Path, make_config: Make) -> None:
    out = tmp_path / "run"
    train(make_config(out, num_grad_steps=10))
    before = (out / "config.yaml").read_bytes()
    with FolderLock(out, "run"), pytest.raises(OutputExistsError, match="being written"):
        train({"resume": str(out), "training": {"num_grad_steps": 20}})
    assert (out / "config.yaml").read_bytes() == before
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    with FolderLock(fresh, "run"), pytest.raises(OutputExistsError, match="being written"):
        train(make_config(fresh))
    assert not fresh.exists() or not list(fresh.iterdir())


def test_run_that_begins_where_another_just_ended_is_refused(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowLock(FolderLock):
        def __init__(self, folder: Path, what: str) -> None:
            (folder / "policy.pt").touch()  # the other run, between our look and our lock
            super().__init__(folder, what)

    monkeypatch.setattr("diffusion_policy.training.run.FolderLock", SlowLock)
    with pytest.raises(OutputExistsError, match="already holds something"):
        train(make_config(tmp_path / "run"))


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


def test_run_with_bad_settings_leaves_no_folder(tmp_path: Path, make_config: Make) -> None:
    config = make_config(tmp_path / "run")
    for change, message in (
        ({"trainig": {}}, "unknown setting trainig"),
        ({"training": {"num_grad_step": 1}}, "training: unknown setting num_grad_step"),
        ({"dataset": str(tmp_path / "none.zarr")}, "does not exist"),
        ({"obs": {"velocity": {"type": "low_dim", "shape": [2]}}}, "velocity"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or mps"),
    ):
        with pytest.raises((ConfigError, MissingFileError, DataError), match=message):
            train({**config, **change})
        assert not (tmp_path / "run").exists()


def test_run_stops_at_a_loss_that_is_not_finite_and_names_step_windows_and_checkpoint(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DiffusionPolicy.loss
    calls = iter(range(1000))

    def poisoned(self: DiffusionPolicy, *args: Any, **kwargs: Any) -> torch.Tensor:
        losses = original(self, *args, **kwargs)
        if next(calls) == 27:  # step 25: validation at step 20 calls twice
            losses = losses * torch.tensor([float("nan")] + [1.0] * (len(losses) - 1))
        return losses

    monkeypatch.setattr(DiffusionPolicy, "loss", poisoned)
    with pytest.raises(NonFiniteLossError) as caught:
        train(make_config(tmp_path / "run"))
    message = str(caught.value)
    assert "gradient step 25" in message
    assert "in 1 of 16 windows" in message
    assert "episode" in message
    assert "state.pt (step 20)" in message
    assert weights(tmp_path / "run")  # the last good policy is still there


def test_run_fine_tunes_from_a_policy_and_keeps_its_normaliser(
    tmp_path: Path, make_config: Make, dataset: Path
) -> None:
    first = train(make_config(tmp_path / "first"))
    wide = tmp_path / "wide.zarr"
    with ReplayBuffer.open(dataset) as old, ReplayBuffer.create(wide) as new:
        for i in range(old.num_episodes):
            new.add_episode({k: 3 * v for k, v in old.get_episode(i).items()})
    config = make_config(tmp_path / "second", num_grad_steps=5)
    second = train({**config, "dataset": str(wide), "init": str(first.out / "policy.pt")})
    old_state, new_state = first.policy.state_dict(), second.policy.state_dict()
    assert torch.equal(old_state["action_normalizer.scale"], new_state["action_normalizer.scale"])
    difference = (old_state["denoiser.final_conv.1.weight"] - new_state["denoiser.final_conv.1.weight"]).abs().max()
    assert 0 < float(difference) < 0.05


def test_run_fine_tunes_with_fields_in_the_order_of_its_policy(tmp_path: Path, make_config: Make) -> None:
    """Features are concatenated in the order of the schema: another order would permute them silently."""
    fields = {"pos": {"type": "low_dim", "shape": [2]}, "action": {"type": "low_dim", "shape": [2]}}
    first = train({**make_config(tmp_path / "first", num_grad_steps=2), "obs": fields})
    config = make_config(tmp_path / "second", num_grad_steps=1)
    init = str(first.out / "policy.pt")
    second = train({**config, "obs": dict(reversed(fields.items())), "init": init, "optim": {"lr": 1e-30}})
    obs = {"pos": np.ones((1, 2, 2), np.float32), "action": np.zeros((1, 2, 2), np.float32)}
    noise = np.ones((1, 4, 2), np.float32)
    np.testing.assert_allclose(second.policy.predict(obs, noise).actions, first.policy.predict(obs, noise).actions)


def test_run_fine_tuning_on_another_schema_is_refused(tmp_path: Path, make_config: Make) -> None:
    first = train(make_config(tmp_path / "first", num_grad_steps=2))
    config = make_config(tmp_path / "second")
    obs = {"pos": {"type": "low_dim", "shape": [2]}, "action": {"type": "low_dim", "shape": [2]}}
    with pytest.raises(ConfigError, match="was trained on observations"):
        train({**config, "obs": obs, "init": str(first.out / "policy.pt")})


def test_run_never_saves_weights_that_are_not_finite(tmp_path: Path, make_config: Make) -> None:
    config = make_config(tmp_path / "run", num_grad_steps=1)
    with pytest.raises(NonFiniteLossError, match="not finite"):
        train({**config, "optim": {"lr": 1e38, "warmup_steps": 0}})
    assert not (tmp_path / "run" / "policy.pt").exists()


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


def test_run_without_tensorboard_or_disk_space_for_curves_still_ends(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusion_policy.training.hooks.draw_curves", full)
    run = train(make_config(tmp_path / "run", num_grad_steps=2))
    assert (run.out / "checkpoints" / "state.pt").is_file()


def test_run_in_bf16_learns_too(tmp_path: Path, make_config: Make) -> None:
    run = train(make_config(tmp_path / "run", num_grad_steps=60, bf16=True))
    losses = [r["loss"] for r in read_metrics(run.out / "metrics.jsonl") if r["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert all(value.dtype == torch.float32 for value in run.policy.state_dict().values())


def test_run_uses_only_so_many_training_episodes(tmp_path: Path, make_config: Make) -> None:
    config = make_config(tmp_path / "run", num_grad_steps=2)
    train({**config, "data": {"val_ratio": 0.2, "episodes": 2}})
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records
    assert np.isfinite(records[-1]["loss"])
