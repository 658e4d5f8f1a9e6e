"""What a run refuses: folders in use, settings that make no sense; it leaves nothing behind."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from diffusion_policy.errors import ConfigError, DataError, EnvironmentIdError, MissingFileError, OutputExistsError
from diffusion_policy.locks import FolderLock
from diffusion_policy.training.run import train

Make = Callable[..., dict[str, Any]]


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


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import not_installed_here", "importing broken_envs raised ModuleNotFoundError: .*not_installed_here"),
        (
            "import gymnasium as gym\n"
            "class Robot(gym.Env):\n"
            "    def __init__(self): raise OSError('no robot at /dev/null0')\n"
            "gym.register('Broken-v0', Robot)\n",
            "raised OSError while it was made: no robot at /dev/null0; correct it; debug=true shows where",
        ),
    ],
)
def test_run_whose_environment_is_broken_is_refused_in_one_line(
    body: str, message: str, tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_envs.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_envs", raising=False)
    config = make_config(tmp_path / "run", rollout_every=10)
    with pytest.raises(EnvironmentIdError, match=message) as caught:
        train({**config, "env": {"id": "broken_envs:Broken-v0"}})
    assert "\n" not in str(caught.value)
    gym.registry.pop("Broken-v0", None)
