"""A folder of recordings: the order of its episodes, their rate, their flags, and what else lies in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import ArrayLike

from diffusion_policy.cli.convert import main
from diffusion_policy.data.formats.convert import convert, prepare
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import DataError


def _folder(folder: Path, episodes: dict[str, dict[str, ArrayLike]], **said: Any) -> str:
    """Returns the path of a folder with CSV files of columns, or npz files of arrays."""
    (folder / "e").mkdir(parents=True)
    for name, columns in episodes.items():
        if name.endswith(".npz"):
            np.savez(folder / "e" / name, **{key: np.asarray(values) for key, values in columns.items()})
        else:
            rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
            lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
            (folder / "e" / name).write_text("\n".join(lines) + "\n")
    suffix = Path(next(iter(episodes))).suffix
    (folder / "mapping.yaml").write_text(yaml.safe_dump({"episodes": f"e/*{suffix}", "keys": {"action": "u"}, **said}))
    return str(folder)


def test_episodes_without_leading_zeros_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    source = _folder(tmp_path / "rec", {f"{i}.csv": {"u": [i, i]} for i in range(1, 13)})
    with convert(source, tmp_path / "a.zarr") as buffer:
        assert buffer["action"][::2, 0].tolist() == list(range(1, 13))


def test_episodes_of_one_number_are_refused_by_name(tmp_path: Path) -> None:
    source = _folder(tmp_path / "rec", {"1.csv": {"u": [1]}, "01.csv": {"u": [1]}})
    with pytest.raises(DataError, match=r"episodes: expected names that tell which is first, but got e/01.csv and e/1"):
        convert(source, tmp_path / "a.zarr")


def _times(count: int, rate: float) -> dict[str, ArrayLike]:
    return {"t": np.arange(count) / rate, "u": np.zeros(count)}


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_rate_is_that_of_the_first_episode_of_several_steps(suffix: str, tmp_path: Path) -> None:
    counts, rates = (1, 1, 20, 20, 1), (10, 10, 10, 50, 10)
    episodes = {f"{i}.{suffix}": _times(counts[i], rates[i]) for i in (0, 1, 2, 4)}
    with convert(_folder(tmp_path / "one", episodes, time="t"), tmp_path / "a.zarr") as buffer:
        assert buffer.attrs["provenance"]["control_hz"] == 10
    source = _folder(tmp_path / "two", {**episodes, f"3.{suffix}": _times(20, 50)}, time="t")
    with pytest.raises(DataError, match=rf"3\.{suffix} has 50 steps a second, expected 10"):
        convert(source, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


def test_rate_is_that_of_the_first_episode_of_several_steps_in_a_file_of_episodes(tmp_path: Path) -> None:
    parts = [_times(1, 10), _times(1, 10), _times(20, 10), _times(20, 50)]
    whole = {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in ("t", "u")}
    source = _folder(tmp_path / "rec", {"0.npz": {**whole, "stop": [1, 2, 22, 42]}}, time="t", ends="stop")
    assert "4 episodes, 42 steps, 10 steps a second" in _preview(source, tmp_path)[0]
    with pytest.raises(DataError, match=r"0\.npz: episode 3 has 50 steps a second, expected 10"):
        convert(source, tmp_path / "a.zarr")


def _preview(source: str, tmp_path: Path) -> list[str]:
    return preview(prepare(source, tmp_path / "preview.zarr"))


OTHERS = {
    "number": np.array(30),
    "text": np.array("pick"),
    "object": np.array([{"a": 1}], object),
    "short": np.zeros(3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_arrays_that_the_mapping_does_not_name_may_be_anything(name: str, tmp_path: Path) -> None:
    source = _folder(tmp_path / "rec", {"0.npz": {"u": np.arange(4.0), name: OTHERS[name]}})
    assert f"dropped  {name}: not in the mapping" in _preview(source, tmp_path)
    with convert(source, tmp_path / "a.zarr") as buffer:
        assert (buffer.keys(), buffer["action"][:, 0].tolist()) == (["action"], [0, 1, 2, 3])


@pytest.mark.parametrize("name", ["number", "text", "object"])
def test_arrays_that_the_mapping_names_must_be_steps_of_numbers(name: str, tmp_path: Path) -> None:
    source = _folder(tmp_path / "rec", {"0.npz": {"u": np.arange(4.0), name: OTHERS[name]}}, keys={"action": name})
    with pytest.raises(DataError, match=rf"0\.npz: '{name}' must hold steps of numbers"):
        convert(source, tmp_path / "a.zarr")


def test_arrays_in_fortran_order_are_split_into_episodes(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    arrays = {"u": np.stack([x, y]).T, "stop": [1, 4, 10]}  # which numpy saves column by column
    with convert(_folder(tmp_path / "rec", {"0.npz": arrays}, ends="stop"), tmp_path / "a.zarr") as buffer:
        np.testing.assert_array_equal(buffer["action"], np.stack([x, y], axis=1))


@pytest.mark.parametrize("key", ["success", "done", "terminated", "truncated"])
def test_flags_are_bool_and_survive_trimming(key: str, tmp_path: Path) -> None:
    course = np.concatenate([np.linspace(0, 1, 40), np.ones(20)])
    flag = np.arange(60) == 58
    columns = {"x": course, "u": course + 0.01, "ok": flag.astype(int)}
    keys = {"agent_pos": "x", "action": "u", key: "ok"}
    source = _folder(tmp_path / "rec", {f"{i}.csv": columns for i in range(3)}, keys=keys, control_hz=10)
    with convert(source, tmp_path / "a.zarr") as buffer:
        assert (buffer.dtype(key), buffer.shape(key)) == (np.bool_, ())
        np.testing.assert_array_equal(buffer[key], np.tile(flag, 3))
    assert main([str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr"), "--trim"]) == 0


@pytest.mark.parametrize("key", ["success", "done"])
def test_flags_other_than_zero_and_one_are_refused_by_name(key: str, tmp_path: Path) -> None:
    source = _folder(tmp_path / "rec", {"0.csv": {"u": [0, 1], "ok": [0, 2]}}, keys={"action": "u", key: "ok"})
    with pytest.raises(DataError, match=f"'{key}' must hold zeros and ones"):
        convert(source, tmp_path / "a.zarr")
