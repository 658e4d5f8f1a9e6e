"""DPPO's train.npz, alone and with its normalization.npz beside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_policy.data.formats.convert import convert, guess_format, prepare
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import ConfigError, DataError, MissingFileError

LENGTHS = (4, 6, 3)


def columns(cameras: int = 1) -> dict[str, np.ndarray]:
    rng, steps = np.random.default_rng(0), sum(LENGTHS)
    return {
        "traj_lengths": np.array(LENGTHS),
        "states": rng.uniform(-1, 1, (steps + 2, 5)),  # with two rows that belong to no trajectory
        "actions": rng.uniform(-1, 1, (steps + 2, 2)).astype(np.float32),
        "images": rng.integers(0, 256, (steps + 2, 3 * cameras, 8, 9)).astype(np.uint8),
        "rewards": rng.normal(size=steps + 2),
        "terminals": np.isin(np.arange(steps + 2), [3]).astype(float),
    }


def saved(folder: Path, given: dict[str, Any]) -> str:
    np.savez(folder / "train.npz", **given)
    return str(folder / "train.npz")


@pytest.mark.parametrize("cameras", [1, 2])
def test_dppo_trajectories_are_rows_of_their_lengths(cameras: int, tmp_path: Path) -> None:
    given = columns(cameras)
    source = saved(tmp_path, given)
    assert guess_format(source) == "dppo"
    assert "dropped  2 rows: they lie behind the last trajectory" in preview(prepare(source, tmp_path / "a.zarr"))
    with convert(source, tmp_path / "a.zarr") as buffer:
        assert buffer.episode_ends.tolist() == [4, 10, 13]
        np.testing.assert_array_equal(buffer["observation"], given["states"][:13].astype(np.float32))
        np.testing.assert_array_equal(buffer["action"], given["actions"][:13])
        np.testing.assert_array_equal(buffer["reward"], given["rewards"][:13].astype(np.float32))
        for i, key in enumerate(["image"] if cameras == 1 else ["image_0", "image_1"]):
            pictures = given["images"][:13, 3 * i : 3 * i + 3]
            np.testing.assert_array_equal(buffer[key], pictures.transpose(0, 2, 3, 1))
        assert np.flatnonzero(buffer["terminated"]).tolist() == [3]
        assert np.flatnonzero(buffer["truncated"]).tolist() == [9, 12]


def test_dppo_scaling_is_undone(tmp_path: Path) -> None:
    rng, given = np.random.default_rng(1), columns()
    raw = {"states": rng.uniform(-40, 90, (15, 5)), "actions": rng.uniform(0, 500, (15, 2))}
    limits = {}
    for name, short in (("states", "obs"), ("actions", "action")):
        low, high = raw[name].min(axis=0), raw[name].max(axis=0)
        limits |= {f"{short}_min": low, f"{short}_max": high}
        given[name] = 2 * (raw[name] - low) / (high - low + 1e-6) - 1  # as their scripts scale
    np.savez(tmp_path / "normalization.npz", **limits)
    source = saved(tmp_path, given)
    with convert(source, tmp_path / "a.zarr") as buffer:
        np.testing.assert_allclose(buffer["observation"], raw["states"][:13], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(buffer["action"], raw["actions"][:13], rtol=1e-6, atol=1e-4)
        assert buffer.attrs["provenance"]["normalization"] == "normalization.npz"
    assert any("scaled back" in line for line in preview(prepare(source, tmp_path / "b.zarr")))
    with convert(source, tmp_path / "b.zarr", normalization="none") as buffer:
        np.testing.assert_array_equal(buffer["action"], given["actions"][:13].astype(np.float32))
    with pytest.raises(MissingFileError, match=r"other\.npz does not exist"):
        convert(source, tmp_path / "c.zarr", normalization=str(tmp_path / "other.npz"))
    np.savez(tmp_path / "normalization.npz", **{**limits, "obs_min": np.zeros(4)})
    with pytest.raises(DataError, match=r"'states' has \(5,\) numbers, but its limits \(4,\)"):
        convert(source, tmp_path / "c.zarr")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"actions": None}, "expected the columns traj_lengths, states, actions, but actions is missing"),
    ({"states": np.array(["a"] * 13)}, "'states' must hold numbers"),
    ({"states": np.zeros((12, 5))}, "traj_lengths say 13 steps, but got states 12"),
    ({"traj_lengths": np.array([4, 0, 3])}, "trajectory 1 has 0 steps"),
    ({"traj_lengths": np.array([4, -6, 3])}, "trajectory 1 has -6 steps"),
    ({"traj_lengths": np.array([4.5])}, "traj_lengths must be whole numbers"),
    ({"traj_lengths": np.array([], int)}, "traj_lengths must be whole numbers"),
    ({"images": np.zeros((15, 3, 8, 9))}, "'images' must be uint8 (N, 3 K, H, W), but got float64"),
    ({"terminals": np.full(15, 3)}, "'terminals' must hold zeros and ones"),
    ({"actions": np.full((15, 2), np.nan)}, "'action' must be finite"),
    ({"actions": np.array([None] * 15)}, "'actions' must hold steps of numbers"),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_dppo_faults_are_one_line_and_leave_nothing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {name: values for name, values in {**columns(), **changes}.items() if values is not None}
    source = saved(tmp_path, given)
    with pytest.raises(DataError) as raised:
        convert(source, tmp_path / "a.zarr", name="dppo")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["train.npz"]


def test_dppo_file_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    source = saved(tmp_path, columns())
    content = Path(source).read_bytes()
    Path(source).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or no npz"):
        convert(source, tmp_path / "a.zarr", name="dppo")
    with pytest.raises(ConfigError, match="--filter is of no use from DPPO's npz files"):
        convert(source, tmp_path / "a.zarr", name="dppo", filter="train")
