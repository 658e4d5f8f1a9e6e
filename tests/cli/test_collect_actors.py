"""dp-collect with agents: what a person types, and what the command says when that makes no sense."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy import ReplayBuffer
from tests.cli.running import Done, dp


@pytest.fixture
def collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Runs dp-collect task=hopper beside still.npz, an agent that hardly moves."""
    layers = {"W0": np.full((4, 11), 0.01), "b0": np.zeros(4), "W1": np.full((3, 4), 0.01), "b1": np.zeros(3)}
    np.savez(tmp_path / "still.npz", kind="mlp_tanh", **layers)

    def run(*words: str) -> Done:
        return dp("collect", "task=hopper", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)

    return run


def test_collect_with_an_agent_says_what_it_is_worth(collect, tmp_path: Path) -> None:
    done = collect("actor=still.npz", "noise=0.1", "steps=150", "out=a.zarr")
    assert done.code == 0, done.err
    assert "whatever came of them: the environment does not tell success" in done.out
    assert "D4RL reference, env v5), mean of still.npz, noise 0.1" in done.out
    with ReplayBuffer.open(tmp_path / "a.zarr") as buffer:
        assert buffer.num_steps == 150
        assert buffer.shape("observation") == (11,)
        assert buffer.attrs["provenance"]["parts"][0]["sha256"]


def test_collect_with_several_actors_makes_one_data_set(collect, tmp_path: Path) -> None:
    words = ["actors=[{actor: still.npz}, {actor: still.npz, noise: 0.5}, {actor: random}]", "episodes=3"]
    done = collect(*words, "out=mixed.zarr.zip")
    assert done.code == 0, done.err
    assert done.out.count("return   ") == 3
    with ReplayBuffer.open(tmp_path / "mixed.zarr.zip") as buffer:
        parts = buffer.attrs["provenance"]["parts"]
    assert [(part["actor"], part.get("noise")) for part in parts] == [
        ("still.npz", None), ("still.npz", 0.5), ("random", None)
    ]  # fmt: skip
    assert [part["episodes"] for part in parts] == [3, 3, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["actor=nothing.npz"], "actor nothing.npz does not exist"),
        (["actor=policy.pt"], "give checkpoint=policy.pt"),
        (["actor=agent"], "expected an agent's npz, random or expert, but got 'agent'"),
        (["actor=still.npz", "checkpoint=policy.pt"], "actor= and checkpoint= exclude each other"),
        (["actor=random", "noise=-1"], "noise must be at least 0"),
        (["actor=random", "noise=loud"], "actor.noise: expected a number"),
        (["actor=random", "stochastic=true"], "stochastic=true samples an agent's npz, but got random"),
        (["actor=still.npz", "stochastic=true"], "needs an agent with log_std"),
        (["actor=random", "actors=[{actor: random}]"], "actors= lists all who act"),
        (["actors=[{agent: still.npz}]"], "actors[0]: unknown setting agent, known: actor"),
        (["actors=still.npz"], "actors: expected a list of settings"),
        (["actor=random", "teleop=true"], "teleop=true and actor="),
        (["actor=random", "steps=0"], "steps must be a whole number, 1 or more"),
        (["actor=random", "steps=10", "episodes=2"], "episodes= and steps= exclude each other"),
        (["actor=random", "steps=10", "keep=success"], "use keep=all"),
        (["task=pusht", "actor=still.npz"], "still.npz acts on one vector"),
        (["task=walker2d", "actor=still.npz"], "made for observations of 11 numbers and actions of 3"),
        ([], "no make_expert(seed)"),
    ],
)
def test_collect_says_in_one_line_what_is_wrong_with_its_actors(words, message, collect, tmp_path: Path) -> None:
    done = collect(*words, "out=a.zarr")
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["still.npz"]


def test_policy_of_collected_data_is_trained_and_judged_by_its_return(
    collect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert collect("actor=random", "episodes=6", "out=random.zarr").code == 0
    run = {"folder": tmp_path, "monkeypatch": monkeypatch, "capsys": capsys}
    words = ["task=hopper", "dataset=random.zarr", "out=a", "data.drop_short=true", "data.val_ratio=0"]
    quick = ["sampler.num_inference_steps=2", "logger.tensorboard=false"]
    small = ["denoiser.down_dims=[16,16,16]", "training.num_grad_steps=2", "training.batch_size=4"]
    trained = dp("train", *words, *small, "training.val_every=0", "training.rollout_every=0", *quick, **run)
    assert trained.code == 0, trained.err
    judged = dp("eval", "checkpoint=a/policy.pt", "episodes=2", "num_envs=2", "film=0", **run)
    assert judged.code == 0, judged.err
    assert "(D4RL reference, env v5)" in judged.out
    told = json.loads((tmp_path / "a/eval/eval.json").read_text())
    assert told["success_rate"] is None
    assert told["normalized_return"]["label"] == "D4RL reference, env v5"
    assert told["normalized_return"]["mean"] == pytest.approx(100 * (told["return"]["mean"] + 20.272305) / 3254.572305)
