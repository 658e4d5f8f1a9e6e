"""Keys left out on the way of a conversion."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy.cli.convert import main
from diffusion_policy.data.replay_buffer import ReplayBuffer
from tests.data.formats.toys import episodes, store

ACTION = np.float32([[-1.4, 0.5], [2.0, -1.0], [0.25, 1.0]])


def test_what_is_left_out_is_missing_and_the_rest_as_it_was(tmp_path: Path, capsys) -> None:
    made = [{"action": ACTION, "state": 3 * ACTION, "depth": ACTION, "torque": ACTION} for _ in range(2)]
    words = [str(store(tmp_path / "a.zarr", made)), str(tmp_path / "b.zarr"), "--without", "depth", "--without=torque"]
    assert main([*words, "--dry-run"]) == 0
    assert "dropped  data/depth: left out\ndropped  data/torque: left out" in capsys.readouterr().out
    assert main(words) == 0
    with ReplayBuffer.open(tmp_path / "b.zarr") as buffer:
        assert buffer.keys() == ["action", "state"]
        np.testing.assert_array_equal(buffer.get_episode(1)["state"], 3 * ACTION)
        assert buffer.attrs["provenance"]["changes"] == {"depth": "left out", "torque": "left out"}


def test_a_key_that_is_left_out_may_be_damaged(tmp_path: Path, capsys) -> None:
    source = store(tmp_path / "a.zarr", [{"action": ACTION, "torque": ACTION}])
    zarr.open_group(source, mode="r+")["data/torque"][1, 0] = np.nan
    words = [str(source), str(tmp_path / "b.zarr")]
    assert main(words) == 2
    assert "leave out the episode or key (dp-convert --without)" in capsys.readouterr().err
    assert main([*words, "--without", "torque"]) == 0
    with ReplayBuffer.open(tmp_path / "b.zarr") as buffer:
        assert buffer.keys() == ["action"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--without", "depht"], "episode 0: no 'depht' to leave out, it has: action, depth"),
        (["--without", "action", "--without", "depth"], "'depth' is all that is left; leave out less"),
        (["--without", "depth", "--clip", "depth=0:1"], "no 'depth' to clip, it has: action"),
        (["--without", "depth", "--trim"], "--without is of no use with --trim"),
    ],
)
def test_what_cannot_be_left_out_is_one_line(words: list[str], message: str, tmp_path: Path, capsys) -> None:
    source = store(tmp_path / "a.zarr", [{"action": ACTION, "depth": ACTION}])
    assert main([str(source), str(tmp_path / "b.zarr"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "b.zarr").exists()


def test_a_data_set_without_actions_says_so(tmp_path: Path, capsys) -> None:
    source = store(tmp_path / "a.zarr", [{"action": ACTION, "state": ACTION}])
    assert main([str(source), str(tmp_path / "b.zarr"), "--without", "action"]) == 0
    assert "no key is called action; dp-train needs action.source=KEY" in capsys.readouterr().err


def test_what_followed_each_step_goes_with_it(tmp_path: Path, capsys) -> None:
    source = store(tmp_path / "a.zarr", episodes(picture=True))
    words = [str(source), str(tmp_path / "b.zarr"), "--without", "front"]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "front: left out" in said
    assert "next_front: left out" in said
    assert main(words) == 0
    with ReplayBuffer.open(tmp_path / "b.zarr") as buffer:
        assert not {"front", "next_front"} & set(buffer.keys())
        assert "next_agent_pos" in buffer.keys()  # noqa: SIM118
        assert buffer.attrs["provenance"]["changes"] == {"front": "left out", "next_front": "left out"}
