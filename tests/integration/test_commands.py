"""The README's commands in miniature, as a user types them: collect, inspect, train, resume, evaluate, deploy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.errors import MissingFileError
from diffusion_policy.paths import bundled_datasets
from tests.cli.running import dp as dp_here  # in this process: without the seconds that a new one takes

TINY = [
    "denoiser.down_dims=[16,32]",
    "denoiser.embed_dim=16",
    "training.num_grad_steps=30",
    "training.batch_size=32",
    "training.val_every=15",
    "training.val_windows=8",
    "training.checkpoint_every=10",
    "sampler.num_inference_steps=2",
]


def dp(name: str, *words: str, cwd: Path, threads: str = "1") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-m", f"diffusion_policy.cli.{name}", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/a: a tiny policy trained on the bundled demonstrations."""
    folder = tmp_path_factory.mktemp("user")
    done = dp("train", "task=pusht", "preset=fast", "data.episodes=8", *TINY, "out=runs/a", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_quickstart_in_miniature_leaves_policy_curves_figures_and_film(trained: Path) -> None:
    words = ["checkpoint=runs/a/policy.pt", "episodes=3", "num_envs=2", "film=2", "out=runs/a/eval"]
    done = dp("eval", *words, cwd=trained)
    assert done.returncode == 0, done.stderr
    run = trained / "runs" / "a"
    for name in ("policy.pt", "curves.png", "metrics.jsonl", "config.yaml", "eval/eval.json", "eval/rollouts.mp4"):
        assert (run / name).stat().st_size > 0, name
    for name in ("eval.json", "episodes.csv", "rollouts.mp4"):
        assert str(Path("runs/a/eval") / name) in done.stdout
    result = json.loads((run / "eval" / "eval.json").read_text())
    assert [episode["seed"] for episode in result["per_episode"]] == [100000, 100001, 100002]
    assert set(result) >= {
        "env_id", "episodes", "seed", "max_reward", "success_rate", "return", "latency_ms", "speed", "per_episode",
        "versions", "hardware",
    }  # fmt: skip
    assert (run / "eval" / "episodes.csv").read_text().count("\n") == 4


FRAGILE = """
import gymnasium as gym
from diffusion_policy_envs.pusht.env import PushTEnv

class Fragile(PushTEnv):
    def reset(self, *, seed=None, options=None):
        if seed == 100002:
            raise OSError("camera unplugged")
        return super().reset(seed=seed, options=options)

gym.register("Fragile-v0", Fragile, max_episode_steps=20)
"""


def test_eval_saves_the_episodes_before_the_one_in_which_the_environment_raised(trained: Path) -> None:
    (trained / "fragile.py").write_text(FRAGILE)
    words = ["checkpoint=runs/a/policy.pt", "episodes=4", "num_envs=1", "film=0", "env.id=fragile:Fragile-v0"]
    done = dp("eval", *words, "out=fragile", cwd=trained)
    assert done.returncode == 2, done.stderr
    assert "raised OSError: camera unplugged" in done.stderr
    result = json.loads((trained / "fragile" / "eval.json").read_text())
    assert [episode["seed"] for episode in result["per_episode"]] == [100000, 100001]


def test_eval_in_workers_finds_the_same_episodes(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["checkpoint=runs/a/policy.pt", "episodes=3", "num_envs=2", "film=1"]
    done = dp("eval", *words, "workers=2", "out=in-workers", cwd=trained)
    assert done.returncode == 0, done.stderr
    code, _out, err = dp_here(
        "eval", *words, "workers=0", "out=here", folder=trained, monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 0, err
    here, there = (json.loads((trained / name / "eval.json").read_text()) for name in ("here", "in-workers"))
    assert there["per_episode"] == here["per_episode"]
    assert (trained / "in-workers" / "rollouts.mp4").stat().st_size > 0


def test_train_resume_by_command_with_more_steps(trained: Path) -> None:
    done = dp("train", "resume=runs/a", "training.num_grad_steps=35", cwd=trained)
    assert done.returncode == 0, done.stderr
    refused = dp("train", "resume=runs/a", "training.batch_size=7", cwd=trained)
    assert refused.returncode == 2
    assert "takes no other setting" in refused.stderr


def test_collect_inspect_and_train_on_what_was_collected(tmp_path: Path) -> None:
    done = dp("collect", "task=pusht", "episodes=1", "seed=7", "out=demos.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    inspected = dp("inspect", "demos.zarr", cwd=tmp_path)
    assert inspected.returncode == 0, inspected.stdout + inspected.stderr
    assert "keypoints" in inspected.stdout
    words = [*TINY, "dataset=demos.zarr", "data.val_ratio=0", "out=runs/own", "training.num_grad_steps=3"]
    assert dp("train", *words, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("episode", [0, -1])
def test_bundled_demonstrations_are_remade_by_the_recorded_command(tmp_path: Path, episode: int) -> None:
    """Episodes of the bundled set, remade from their recorded seeds, are the same bit for bit."""
    from diffusion_policy.data.replay_buffer import ReplayBuffer

    with ReplayBuffer.open(bundled_datasets()["pusht"]) as bundled:
        seed = bundled.attrs["provenance"]["seeds"][episode]
        words = ["task=pusht", "episodes=1", f"seed={seed}", "out=one.zarr"]
        assert dp("collect", *words, cwd=tmp_path).returncode == 0
        with ReplayBuffer.open(tmp_path / "one.zarr") as remade:
            for key, values in bundled.get_episode(range(bundled.num_episodes)[episode]).items():
                np.testing.assert_array_equal(values, remade.get_episode(0)[key], err_msg=key)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train", ["dataset=none.zarr", "out=x"], "none.zarr does not exist; give a zarr"),
        ("train", ["dataset=package://none", "out=x"], "known: package://pusht"),
        (
            "train",
            ["trainig.num_grad_steps=3"],
            "unknown setting 'trainig.num_grad_steps', did you mean training.num_grad",
        ),
        ("train", ["task=pushtt"], "unknown task 'pushtt', did you mean pusht? known: "),
        (
            "train",
            ["denoiser.name=unet3d", "out=x"],
            "unknown backbone 'unet3d', known: ensemble, mlp, residual_mlp",
        ),
        ("train", ["horizons.action_horizon=16", "out=x"], "action_horizon must be in [1, 15]"),
        ("train", ["policy=mlp", "sampler=ddpm", "out=x"], "policy 'mlp' has no sampler; drop sampler="),
        ("train", ["out=."], "already holds something"),
        ("train", ["plugins=[no_such_module]", "out=x"], "cannot import no_such_module"),
        ("eval", ["checkpoint=none.pt"], "none.pt does not exist"),
        ("eval", ["checkpoint=runs/a/policy.pt", "env.id=diffusion_policy_envs:Pusht-v0", "out=x"], "PushT-v0"),
        ("eval", ["checkpoint=runs/a/policy.pt", "episodes=0", "out=x"], "episodes must be a whole number, 1 or more"),
        ("eval", ["checkpoint=runs/a/policy.pt", "workers=some", "out=x"], "workers must be a whole number, 0 or more"),
        ("eval", [], "checkpoint: expected a value, got nothing; give checkpoint=..."),
        ("eval", ["checkpoint=runs/a"], "is a folder; name the file in it"),
        ("eval", ["checkpoint=runs/a/policy.pt", "epsiodes=3"], "did you mean episodes"),
        ("eval", ["checkpoint=runs/a/policy.pt", "out=/proc/nope/x"], "cannot write /proc/nope/x"),
        ("train", ["init=runs/a/policy.pt", "sampler.num_inference_steps=3", "out=x"], "drop sampler.num_inference"),
        ("train", ["training.rollout_every=5", "env.id=diffusion_policy_envs:None-v0", "out=x/y"], "close to it: "),
        ("eval", ["checkpoint=runs/a/metrics.jsonl", "out=x"], "cut short or not a policy checkpoint"),
        ("collect", ["episodes=1"], "out: expected a path"),
        ("inspect", ["none.zarr"], "none.zarr"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    trained: Path,
    command: str,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(trained.rglob("*"))
    code, _out, err = dp_here(command, *words, folder=trained, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert sorted(trained.rglob("*")) == before  # nothing lost, nothing left behind


@pytest.mark.parametrize("command", ["train", "eval", "collect", "inspect"])
def test_help_shows_examples(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _err = dp_here(command, "--help", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert f"dp-{command} " in out
    assert "xample" in out


def test_debug_lets_the_error_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingFileError):
        dp_here(
            "train", "dataset=none.zarr", "out=x", "debug=true", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys
        )
