"""A run: learns, leaves its files, is reproducible, stops where it must."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import DataError, NonFiniteLossError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.library import make_policy
from diffusion_policy.training.demonstrations import load_demonstrations
from diffusion_policy.training.metrics import read_metrics
from diffusion_policy.training.run import train
from tests.training.runs import assert_same_run, weights

Make = Callable[..., dict[str, Any]]


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
    from diffusion_policy.training import checkpoint_hook

    steps: list[int] = []
    original = checkpoint_hook.save_atomically

    def counted(content: dict[str, Any], path: Path) -> None:
        steps.append(content["loop"]["grad_step"])
        original(content, path)

    monkeypatch.setattr(checkpoint_hook, "save_atomically", counted)
    train(make_config(tmp_path / "run"))
    assert steps == [10, 20, 30, 40]


def test_run_saves_the_average_not_the_last_weights(tmp_path: Path, make_config: Make) -> None:
    run = train(make_config(tmp_path / "run"))
    state = torch.load(run.out / "checkpoints" / "state.pt", weights_only=True)
    name = "denoiser.final_conv.1.weight"
    assert not torch.equal(weights(run.out)[name], state["loop"]["model"][name])


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


def test_run_never_saves_weights_that_are_not_finite(tmp_path: Path, make_config: Make) -> None:
    config = make_config(tmp_path / "run", num_grad_steps=1)
    with pytest.raises(NonFiniteLossError, match="not finite"):
        train({**config, "optim": {"lr": 1e38, "warmup_steps": 0}})
    assert not (tmp_path / "run" / "policy.pt").exists()


def test_run_without_tensorboard_or_disk_space_for_curves_still_ends(
    tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusion_policy.training.checkpoint_hook.draw_curves", full)
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


def test_run_on_successful_episodes_only_sees_these(tmp_path: Path, dataset: Path, make_config: Make) -> None:
    config = make_config(tmp_path / "run", num_grad_steps=2)
    config["data"] = {"successful": True, "val_ratio": 0.0}
    with pytest.raises(DataError, match=r"data\.successful=true needs to know .* there is no 'success'"):
        train(config)
    with ReplayBuffer.open(dataset) as old, ReplayBuffer.create(tmp_path / "told.zarr") as told:
        for i, episode in enumerate(old.episodes()):
            told.add_episode({**episode, "success": np.arange(20) >= (19 if i in (1, 4) else 20)})
    with ReplayBuffer.open(tmp_path / "told.zarr") as buffer:
        sections = {name: config[name] for name in ("horizons", "denoiser", "diffusion", "sampler")}
        policy = make_policy(
            {"policy": {"name": "diffusion"}, **sections}, {"pos": ObsField("low_dim", (2,))}, ActionSpec((2,))
        )
        found = load_demonstrations({**config, "dataset": str(tmp_path / "told.zarr")}, policy, 0, torch.device("cpu"))
        expected = np.concatenate([buffer.get_episode(i)["action"] for i in (1, 4)])
    np.testing.assert_array_equal(found.train.all_actions(), expected)
    with ReplayBuffer.create(tmp_path / "failed.zarr") as failed:
        failed.add_episode({**episode, "success": np.zeros(20, bool)})
    with pytest.raises(DataError, match="none of 1 episodes succeeded"):
        train({**config, "dataset": str(tmp_path / "failed.zarr")})
    assert not (tmp_path / "run").exists()
