"""What a run refuses: folders in use, settings that make no sense; it leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffusion_policy.errors import ConfigError, DataError, MissingFileError, OutputExistsError
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
