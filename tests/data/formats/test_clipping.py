"""Numbers clipped on the way of a conversion."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.cli.convert import main
from diffusion_policy.data.replay_buffer import ReplayBuffer
from tests.data.formats.toys import store

ACTION = np.float32([[-1.4, 0.5], [2.0, -1.0], [0.25, 1.0]])


def test_clipped_numbers_lie_within_the_bounds_and_the_others_stay(tmp_path: Path, capsys) -> None:
    made = [{"action": ACTION, "state": 3.0 * ACTION}, {"action": ACTION / 4, "state": ACTION}]
    words = [str(store(tmp_path / "a.zarr", made)), str(tmp_path / "b.zarr"), "--clip", "action=-1:1"]
    assert main([*words, "--dry-run"]) == 0
    assert "# clipped to -1:1" in capsys.readouterr().out
    assert main(words) == 0
    with ReplayBuffer.open(tmp_path / "b.zarr") as buffer:
        found = buffer.get_episode(0)
        np.testing.assert_array_equal(found["action"], np.float32([[-1, 0.5], [1, -1], [0.25, 1]]))
        np.testing.assert_array_equal(found["state"], 3.0 * ACTION)
        np.testing.assert_array_equal(buffer.get_episode(1)["action"], ACTION / 4)
        assert found["action"].dtype == np.float32
        assert buffer.attrs["provenance"]["changes"] == {"action": "clipped to -1:1"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("action=1", "--clip must be KEY=LOW:HIGH, e.g. action=-1:1, but got 'action=1'"),
        ("action=1:-1", "the first bound must be below the second, but got 1:-1"),
        ("act=-1:1", "episode 0: no 'act' to clip, it has: action, mode"),
        ("mode=0:1", "'mode' must hold fractions to be clipped, but has int64"),
    ],
)
def test_what_cannot_be_clipped_is_one_line(spec: str, message: str, tmp_path: Path, capsys) -> None:
    source = store(tmp_path / "a.zarr", [{"action": ACTION, "mode": np.arange(3)[:, None]}])
    assert main([str(source), str(tmp_path / "b.zarr"), "--clip", spec]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "b.zarr").exists()


def test_bounds_that_were_told_hold_for_clipped_actions(tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", [{"action": ACTION}], action_bounds=[[-1.0, -1.0], [1.0, 1.0]])
    assert main([str(source), str(tmp_path / "b.zarr"), "--clip", "action=-1:1"]) == 0
    with ReplayBuffer.open(tmp_path / "b.zarr") as buffer:
        assert buffer.attrs["provenance"]["action_bounds"] == [[-1.0, -1.0], [1.0, 1.0]]
