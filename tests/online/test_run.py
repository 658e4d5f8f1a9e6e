"""Runs of dp-online: what they leave, and that they can be had again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, of the extra online")

import torch
from stable_baselines3 import SAC

from diffusion_policy import compose_config
from diffusion_policy.errors import ConfigError, NonFiniteLossError, StorageError
from diffusion_policy.online import MixedReplayBuffer
from diffusion_policy.online.config import parts_of
from diffusion_policy.online.run import make_agent, train_online

TINY = (
    "env=Pendulum-v1", "+env_kwargs.max_episode_steps=40", "steps=240", "update_ratio=1", "refit_every=100",
    "samples=64", "device=cpu",
    "sac.hidden_dims=[8]", "sac.batch_size=16", "sac.learning_starts=150",
    "evaluation.every=100", "evaluation.episodes=2",
    "model.width=16", "model.blocks=1", "model.embed_dim=8", "sampling.steps=3",
    "training.num_grad_steps=8", "training.batch_size=32",
)  # fmt: skip


def config(out: Path, *words: str) -> dict[str, Any]:
    return compose_config("online", *TINY, f"out={out}", *words)


def course(results: dict[str, Any]) -> list[Any]:
    """What a run measured, without the time that it took."""
    refreshes = [
        {name: value for name, value in each.items() if "seconds" not in name} for each in results["refreshes"]
    ]
    return [results["evaluations"], refreshes, results["env_steps"], results["grad_steps"]]


def test_run_leaves_results_curves_and_an_agent_that_acts(tmp_path: Path) -> None:
    done = train_online(config(tmp_path / "a"))
    assert done.finished
    files = {each.name for each in done.out.iterdir()}
    assert files == {"config.yaml", "metrics.jsonl", "results.json", "curves.png", "sac.zip"}
    results = json.loads((done.out / "results.json").read_text())
    assert results == done.results
    assert [each["env_step"] for each in results["evaluations"]] == [0, 100, 200, 240]
    assert [each["env_step"] for each in results["refreshes"]] == [100, 200]
    assert {"ks_mean", "correlation_mean", "terminal_rate", "seeds"} <= set(results["refreshes"][0])
    assert results["seeds"] == {"agent": 0, "evaluation": 100_000}
    assert "stable-baselines3" in results["versions"]
    kinds = [json.loads(line)["kind"] for line in (done.out / "metrics.jsonl").read_text().splitlines()]
    assert set(kinds) == {"evaluation", "episode", "refresh", "train"}
    agent = SAC.load(done.out / "sac.zip", device="cpu")
    action, _ = agent.predict(np.zeros(3, np.float32), deterministic=True)
    assert np.abs(action) <= 2


def test_same_seed_is_the_same_run_and_another_one_is_not(tmp_path: Path) -> None:
    first, again = (train_online(config(tmp_path / name)) for name in "ab")
    other = train_online(config(tmp_path / "c", "seed=1"))
    assert course(first.results) == course(again.results)
    ours, theirs = (SAC.load(run.out / "sac.zip", device="cpu").policy.state_dict() for run in (first, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert course(first.results) != course(other.results)


def test_evaluations_change_nothing_of_what_is_learned(tmp_path: Path) -> None:
    often, never = (train_online(config(tmp_path / n, f"evaluation.every={n}")) for n in ("40", "0"))
    assert often.results["evaluations"][-1] == never.results["evaluations"][-1]


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("update_ratio", [1, 3])
def test_gradient_steps_an_environment_step_are_the_update_ratio(num_envs, update_ratio, tmp_path, monkeypatch) -> None:
    """Counted where batches are drawn."""
    drawn: list[int] = []
    sample = MixedReplayBuffer.sample

    def counted(self: Any, batch_size: int, env: Any = None) -> Any:
        drawn.append(batch_size)
        return sample(self, batch_size, env)

    monkeypatch.setattr(MixedReplayBuffer, "sample", counted)
    words = (f"num_envs={num_envs}", f"update_ratio={update_ratio}", "steps=60", "sac.learning_starts=20")
    parts = parts_of(config(tmp_path / "a", *words, "refit_every=50"))
    agent = make_agent(parts.run, parts.sac, parts.device)
    agent.learn(60)
    assert agent.num_timesteps == 60
    assert drawn == [16] * 40 * update_ratio


def test_share_of_zero_fits_nothing(tmp_path: Path) -> None:
    done = train_online(config(tmp_path / "a", "synthetic_ratio=0", "refit_every=9999", "steps=160"))
    assert done.finished
    assert done.results["refreshes"] == []


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("training.batch_size=240", "training.batch_size must be below steps, or no model is ever fitted"),
        ("sac.learning_starts=240", "sac.learning_starts must be below steps, or the agent never learns"),
    ],
)
def test_runs_too_short_to_learn_or_to_fit_are_refused(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        train_online(config(tmp_path / "a", word))
    assert not (tmp_path / "a").exists()


def test_refit_that_diverges_keeps_what_was_learned(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError):
        train_online(config(tmp_path / "a", "optim.lr=1e30", "optim.grad_clip=null"))
    found = json.loads((tmp_path / "a/results.json").read_text())
    assert (found["finished"], found["env_steps"]) == (False, 100)
    assert SAC.load(tmp_path / "a/sac.zip", device="cpu").num_timesteps == 100


def test_agent_that_cannot_be_saved_is_one_error_and_the_results_are_there(tmp_path: Path, monkeypatch) -> None:
    def full(self: SAC, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SAC, "save", full)
    with pytest.raises(StorageError, match=r"cannot write .*sac\.zip.*No space left"):
        train_online(config(tmp_path / "a", "synthetic_ratio=0", "steps=160"))
    assert {each.name for each in (tmp_path / "a").iterdir()} == {"config.yaml", "metrics.jsonl", "results.json"}
    assert json.loads((tmp_path / "a/results.json").read_text())["finished"]


def test_refits_beyond_the_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refit_every must be below steps, or nothing is ever synthetic"):
        train_online(config(tmp_path / "a", "refit_every=240"))
    assert not (tmp_path / "a").exists()
