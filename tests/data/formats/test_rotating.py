"""Rotations in another form, on the way of a conversion."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.cli.convert import main
from diffusion_policy.data.formats.convert import convert
from diffusion_policy.data.formats.rotating import Rotating
from diffusion_policy.errors import ConfigError, DataError, UnknownNameError
from tests.data.formats.toys import same, store


def robots() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    made = []
    for steps in (4, 6):
        seen = Rotation.random(steps + 1, rng=rng).as_rotvec().astype(np.float32)
        turn = Rotation.random(steps, rng=rng).as_rotvec()
        action = np.concatenate([rng.normal(size=(steps, 3)), turn, rng.normal(size=(steps, 1))], axis=1)
        made.append({"rot": seen[:-1], "next_rot": seen[1:], "action": action.astype(np.float32)})
    return made


def test_rotations_of_some_numbers_are_written_in_another_form(tmp_path: Path, capsys) -> None:
    made = robots()
    source = str(store(tmp_path / "a.zarr", made, action_bounds=[[-1] * 7, [1] * 7]))
    words = ["--rotation", "action[3:6]=axis_angle->rotation_6d_rows", "--rotation", "rot=axis_angle->quaternion_wxyz"]
    assert main([source, str(tmp_path / "b.zarr"), *words, "--dry-run"]) == 0
    assert "# [3:6] axis_angle -> rotation_6d_rows" in capsys.readouterr().out
    rotating = [Rotating.parse(word) for word in words[1::2]]
    with convert(source, tmp_path / "b.zarr", transforms=rotating) as buffer:
        for i, episode in enumerate(made):
            found = buffer.get_episode(i)
            matrix = Rotation.from_rotvec(episode["action"][:, 3:6]).as_matrix()
            np.testing.assert_allclose(found["action"][:, 3:9], matrix[:, :2].reshape(-1, 6), atol=1e-6)
            np.testing.assert_array_equal(found["action"][:, [0, 1, 2, 9]], episode["action"][:, [0, 1, 2, 6]])
            for key in ("rot", "next_rot"):
                quaternion = Rotation.from_rotvec(episode[key]).as_quat(canonical=True, scalar_first=True)
                np.testing.assert_allclose(found[key], quaternion, atol=1e-6)
                assert found[key].dtype == np.float32
        record = buffer.attrs["provenance"]
    assert record["changes"] == {
        "action": "[3:6] axis_angle -> rotation_6d_rows", "rot": "axis_angle -> quaternion_wxyz"
    }  # fmt: skip
    assert "action_bounds" not in record  # they were of other numbers


def test_rotations_there_and_back_are_those_that_came(tmp_path: Path) -> None:
    source = store(tmp_path / "a.zarr", [{**episode, "rot": episode["rot"].astype(float)} for episode in robots()])
    there, back = "rot=axis_angle->rotation_6d_columns", "rot=rotation_6d_columns->axis_angle"
    convert(str(source), tmp_path / "b.zarr", transforms=[Rotating.parse(there)])
    with convert(str(tmp_path / "b.zarr"), tmp_path / "c.zarr", transforms=[Rotating.parse(back)]) as buffer:
        for i, episode in enumerate(robots()):
            np.testing.assert_allclose(buffer.get_episode(i)["rot"], episode["rot"], rtol=1e-6, atol=1e-9)
    convert(str(source), tmp_path / "d.zarr")
    same(source, tmp_path / "d.zarr")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("rot=axis_angle", ConfigError, "must be KEY=FROM->TO"),
        ("rot=axis_angle->rotation_6d", UnknownNameError, "say rotation_6d_columns or rotation_6d_rows"),
        ("action[3:7]=axis_angle->matrix", ConfigError, "axis_angle takes 3 numbers, but got 4"),
        ("turn=axis_angle->matrix", DataError, "episode 0: no 'turn' to rotate, it has: action, next_rot, rot"),
        ("action=axis_angle->matrix", DataError, "'action': expected axis_angle of 3 numbers"),
        ("action[6:9]=axis_angle->matrix", DataError, "'action' has (7,) numbers a step"),
        ("action[0:4]=quaternion_wxyz->matrix", DataError, "quaternions of length 1"),
    ],
)
def test_rotations_that_do_not_fit_are_one_line(spec: str, error: type, message: str, tmp_path: Path, capsys) -> None:
    source = store(tmp_path / "a.zarr", robots())
    assert main([str(source), str(tmp_path / "b.zarr"), "--rotation", spec]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "b.zarr").exists()
    with pytest.raises(error):
        convert(str(source), tmp_path / "b.zarr", transforms=[Rotating.parse(spec)])


def test_names_of_numbers_that_are_others_now_are_forgotten_and_all_changes_noted(tmp_path: Path) -> None:
    source = str(store(tmp_path / "a.zarr", robots(), names={"rot": ["rx", "ry", "rz"], "action": list("abcdefg")}))
    words = ("rot=axis_angle->quaternion_wxyz", "rot=quaternion_wxyz->quaternion_xyzw")
    with convert(source, tmp_path / "b.zarr", transforms=[Rotating.parse(word) for word in words]) as buffer:
        told = buffer.attrs["provenance"]
    assert told["names"] == {"action": list("abcdefg")}
    assert told["changes"] == {"rot": "axis_angle -> quaternion_wxyz; quaternion_wxyz -> quaternion_xyzw"}
