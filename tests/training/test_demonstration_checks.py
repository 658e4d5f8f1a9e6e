"""Demonstrations that contradict their task are noticed before training."""

import logging
from pathlib import Path

import pytest
import torch

from diffusion_policy.config import ActionSpec, action_spec_from
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.paths import bundled_datasets
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.demonstration_checks import check_action_bounds

PUSHT = action_spec_from({"shape": [2], "low": 0.0, "high": 512.0, "unit": "px", "names": ["x", "y"]})


def test_action_bounds_that_half_of_the_steps_break_are_refused_with_the_worst_axis() -> None:
    action = torch.tensor([[0.0, -1.2], [0.0, 0.7], [0.0, 0.05]])
    spec = ActionSpec((2,), low=-0.1, high=0.1, unit="rad", names=("hip", "knee"))
    with pytest.raises(ConfigError, match=r"66\.7 % of 3 steps .* worst knee: recorded -1\.2 to 0\.7 rad, allowed -0"):
        check_action_bounds(action, spec)


def test_action_bounds_that_some_steps_break_are_warned_of(caplog) -> None:
    check_action_bounds(torch.tensor([[0.0], [0.2], [2.0], [0.1]]), ActionSpec((1,), low=-1.0, high=1.0))
    assert "25.0 % of 4 steps lie outside" in caplog.text
    assert "worst number 0: recorded 0 to 2, allowed -1 to 1" in caplog.text
    assert "rad or degrees" in caplog.text


def test_action_bounds_say_nothing_of_rounding_nor_where_one_is_missing(caplog) -> None:
    caplog.set_level(logging.INFO)
    check_action_bounds(torch.tensor([[1.0 + 1e-6], [-1.0]]), ActionSpec((1,), low=-1.0, high=1.0))
    check_action_bounds(torch.tensor([[9.0]]), ActionSpec((1,), low=-1.0))
    assert caplog.text == ""


def test_action_bounds_hold_for_the_bundled_demonstrations(caplog) -> None:
    with ReplayBuffer.open(bundled_datasets()["pusht"]) as buffer:
        check_action_bounds(torch.from_numpy(buffer["action"][:]), PUSHT)
    assert caplog.text == ""


def test_action_bounds_hold_for_the_human_demonstrations(human_pusht: Path, caplog) -> None:
    with ReplayBuffer.open(human_pusht) as buffer:
        check_action_bounds(torch.from_numpy(buffer["action"][:]), PUSHT)
    assert caplog.text == ""


def test_action_bounds_are_compared_when_a_run_begins(make_config, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"outside \[action\.low, action\.high\]"):
        assemble({**config, "action": {"shape": [2], "low": -1e-3, "high": 1e-3}})
