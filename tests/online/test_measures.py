"""Records of an online run."""

import json
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, of the extra online")

from diffusion_policy.errors import StorageError
from diffusion_policy.online.measures import Records


def test_records_are_lines_of_json_whatever_was_measured(tmp_path: Path) -> None:
    records = Records(tmp_path / "metrics.jsonl")
    records.add("evaluation", 5, {"return": {"mean": float("nan"), "ci95": [1.0, float("inf")]}})
    records.add("episode", 6, {"return": 2.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"kind": "evaluation", "env_step": 5, "return": {"mean": None, "ci95": [1.0, None]}}
    assert "NaN" not in lines[0]
    assert records.of("episode") == [{"env_step": 6, "return": 2.0}]


def test_records_that_cannot_be_written_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="free some space"):
        Records(tmp_path).add("episode", 0, {})
