"""UMI's zarr.zip, as its `07_generate_replay_buffer.py` lays it out: zarr 2, a JPEG XL chunk a picture, no action."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy.data import store
from diffusion_policy.data.formats.convert import convert, guess_format, prepare
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import ConfigError, DataError

ENDS = [4, 9]
POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")


def poses(grippers: int) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(0), {}
    for i in range(grippers):
        for part, size, dtype in (
            ("eef_pos", 3, "f4"), ("eef_rot_axis_angle", 3, "f4"), ("gripper_width", 1, "f4"),
            ("demo_start_pose", 6, "f8"), ("demo_end_pose", 6, "f8"),
        ):  # fmt: skip
            found[f"robot{i}_{part}"] = rng.normal(size=(ENDS[-1], size)).astype(dtype)
    return found


def packed(folder: Path, columns: dict[str, np.ndarray], pictures: np.ndarray | None = None, ends=ENDS) -> Path:
    group = zarr.open_group(folder / "umi", mode="w", zarr_format=2)
    data, meta = group.create_group("data"), group.create_group("meta")
    for name, values in columns.items():
        data.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype)[:] = values
    if pictures is not None:
        codecs = pytest.importorskip("imagecodecs.numcodecs", reason="the extra imagecodecs is not installed")
        codecs.register_codecs(verbose=False)
        array = data.create_array(
            "camera0_rgb",
            shape=pictures.shape,
            chunks=(1, *pictures.shape[1:]),
            dtype="u1",
            compressors=codecs.Jpegxl(lossless=True, level=None, numthreads=1),
        )
        array[:] = pictures
    meta.create_array("episode_ends", shape=(len(ends),), chunks=(len(ends),), dtype="i8")[:] = ends
    store.pack_zip(folder / "umi", folder / "dataset.zarr.zip")
    return folder / "dataset.zarr.zip"


@pytest.mark.parametrize("grippers", [1, 2])
@pytest.mark.parametrize("action", ["same", "next"])
def test_umi_action_is_the_pose_of_the_step_that_was_chosen(action: str, grippers: int, tmp_path: Path) -> None:
    given = poses(grippers)
    source = str(packed(tmp_path, given))
    assert guess_format(source) == "umi"
    with convert(source, tmp_path / "a.zarr", action=action) as buffer:
        assert buffer.episode_ends.tolist() == ENDS
        order = [f"robot{i}_{part}" for i in range(grippers) for part in POSE]
        row = np.concatenate([given[key] for key in order], axis=1)
        steps = {"same": [0, 1, 2, 3, 4, 5, 6, 7, 8], "next": [1, 2, 3, 3, 5, 6, 7, 8, 8]}[action]
        np.testing.assert_array_equal(buffer["action"], row[steps])
        for key, values in given.items():
            np.testing.assert_array_equal(buffer[key], values.astype(np.float32))
        assert buffer.attrs["provenance"]["umi_action"] == action
        assert buffer.attrs["provenance"]["action_parts"] == order


def test_umi_pictures_are_decoded(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    source = str(packed(tmp_path, poses(1), pictures))
    lines = preview(prepare(source, tmp_path / "a.zarr"))
    assert any(line.split()[:5] == ["data/camera0_rgb", "uint8", "16x16x3", "->", "camera0_rgb"] for line in lines)
    assert any("# of the same step" in line for line in lines)
    with convert(source, tmp_path / "a.zarr", control_hz=59.94) as buffer:
        np.testing.assert_array_equal(buffer["camera0_rgb"], pictures)
        assert buffer.attrs["provenance"]["control_hz"] == 59.94


def test_umi_without_a_gripper_width_is_as_its_sampler_takes_it(tmp_path: Path) -> None:
    given = {key: values for key, values in poses(1).items() if "width" not in key}
    with convert(str(packed(tmp_path, given)), tmp_path / "a.zarr") as buffer:
        assert buffer.shape("action") == (6,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"robot0_eef_rot_axis_angle": None}, "expected robot0_eef_rot_axis_angle, but it has"),
        ({"robot0_eef_pos": None}, "expected robot0_eef_pos, but it has"),
        ({"action": np.zeros((9, 2))}, "read it with --format zarr"),
        ({"robot0_eef_pos": np.zeros((5, 3))}, "must have the 9 steps that meta/episode_ends says, but has 5"),
        ({"robot0_eef_pos": np.array([b"abc"] * 9)}, "'robot0_eef_pos' must hold numbers"),
        ({"robot0_eef_pos": np.full((9, 3), np.inf)}, "'action' must be finite"),
        ({"a b": np.zeros((9, 1))}, "but got 'a b'; rename it"),
    ],
)
def test_umi_faults_are_one_line_and_leave_nothing(changes, message: str, tmp_path: Path) -> None:
    given = {key: values for key, values in {**poses(1), **changes}.items() if values is not None}
    source = packed(tmp_path, given)
    with pytest.raises(DataError) as raised:
        convert(str(source), tmp_path / "a.zarr", name="umi")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.zarr.zip", "umi"]


def test_umi_empty_episodes_and_cut_files_are_one_line(tmp_path: Path) -> None:
    source = packed(tmp_path, poses(1), ends=[4, 4, 9])
    with pytest.raises(DataError, match="entry 1 is 4 after 4"):
        convert(str(source), tmp_path / "a.zarr")
    source.write_bytes(source.read_bytes()[:2000])
    with pytest.raises(DataError, match="it may be cut short"):
        convert(str(source), tmp_path / "a.zarr", name="umi")
    with pytest.raises(ConfigError, match="--action must be same or next, but got 'last'"):
        convert(str(source), tmp_path / "a.zarr", name="umi", action="last")


def test_umi_names_that_leave_the_archive_are_refused(tmp_path: Path) -> None:
    source = packed(tmp_path, poses(1))
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("data/../../escaped/.zarray", archive.read("data/robot0_eef_pos/.zarray"))
    with pytest.raises(DataError, match=r"The path 'data/\.\.' is invalid"):
        convert(str(source), tmp_path / "a.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.zarr.zip", "umi"]
    assert not (tmp_path.parent / "escaped").exists()
