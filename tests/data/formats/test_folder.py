"""A folder of recordings with a mapping file: that of docs/data.md, word for word, and what can be wrong with one."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from diffusion_policy.cli.convert import main
from diffusion_policy.data.formats.convert import convert, guess_format, prepare
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.data.mending import Mending, mend
from diffusion_policy.errors import DataError, DiffusionPolicyError, MissingFileError
from diffusion_policy.film.video import save_video

DOCS = Path(__file__).parents[3] / "docs/data.md"
LENGTHS = (4, 6)
NAMES = ("t", "x", "y", "z", "gripper", "cmd_x", "cmd_y", "cmd_z", "cmd_gripper")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Returns the folder that the documentation tells of."""
    rng, folder = np.random.default_rng(0), tmp_path / "recordings"
    found = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    (folder / "episodes").mkdir(parents=True)
    (folder / "mapping.yaml").write_text(found[1])
    for i, steps in enumerate(LENGTHS):
        rows = rng.normal(size=(steps, len(NAMES))).round(4)
        rows[:, 0] = 1e9 + np.arange(steps) / 25 + rng.uniform(0, 1e-3, steps)
        lines = [",".join(NAMES), *(",".join(repr(float(value)) for value in row) for row in rows)]
        (folder / f"episodes/{i:03}.csv").write_text("\n".join(lines) + "\n")
        (folder / f"images/{i:03}").mkdir(parents=True)
        for step in range(steps):
            pixels = rng.integers(0, 256, (10, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{i:03}/front_{step:05}.png")
    return folder


def changed(folder: Path, **changes: Any) -> None:
    said = yaml.safe_load((folder / "mapping.yaml").read_text())
    said = {key: value for key, value in {**said, **changes}.items() if value is not None}
    (folder / "mapping.yaml").write_text(yaml.safe_dump(said))


def table(folder: Path, i: int) -> dict[str, np.ndarray]:
    head, *rows = [line.split(",") for line in (folder / f"episodes/{i:03}.csv").read_text().split()]
    return {name: np.array([float(row[j]) for row in rows]) for j, name in enumerate(head)}


def test_folder_of_the_documentation_is_read(recordings: Path, tmp_path: Path) -> None:
    assert guess_format(str(recordings)) == "folder"
    with convert(str(recordings), tmp_path / "a.zarr") as buffer:
        assert buffer.episode_ends.tolist() == [4, 10]
        for i in range(2):
            found, given = buffer.get_episode(i), table(recordings, i)
            for key, names in (
                ("agent_pos", ["x", "y", "z"]), ("gripper", ["gripper"]),
                ("action", ["cmd_x", "cmd_y", "cmd_z", "cmd_gripper"]),
            ):  # fmt: skip
                np.testing.assert_array_equal(found[key], np.float32([given[name] for name in names]).T)
            for step, picture in enumerate(found["front"]):
                image = Image.open(recordings / f"images/{i:03}/front_{step:05}.png")
                np.testing.assert_array_equal(picture, np.asarray(image))
        record = buffer.attrs["provenance"]
    assert record["control_hz"] == pytest.approx(25, rel=0.02)
    assert record["units"] == {"agent_pos": "m", "gripper": "m"}


def test_times_that_are_kept_as_a_key_stay_exact_and_are_resampled_by(recordings: Path, tmp_path: Path) -> None:
    said = yaml.safe_load((recordings / "mapping.yaml").read_text())
    changed(recordings, time=None, images=None, keys={**said["keys"], "time_s": "t"})
    _slower(recordings)
    lines = preview(prepare(str(recordings), tmp_path / "a.zarr"))
    assert any(line.split()[:6] == ["t", "float64", "1", "->", "time_s", "float64"] for line in lines)
    with convert(str(recordings), tmp_path / "a.zarr") as buffer:
        for i in range(2):
            np.testing.assert_array_equal(buffer.get_episode(i)["time_s"][:, 0], table(recordings, i)["t"])
        slow, _ = mend(buffer, tmp_path / "b.zarr", Mending(resample=5, action_kind="absolute"))
    assert slow.episode_ends.tolist() == [1, 4]  # 4 steps at 25 Hz, and 6 at 10 Hz


def test_folder_preview_tells_columns_and_what_is_not_used(recordings: Path, tmp_path: Path) -> None:
    changed(recordings, keys={"action": ["cmd_x", "cmd_y"]})
    lines = preview(prepare(str(recordings), tmp_path / "a.zarr"))
    assert any(line.split()[:6] == ["cmd_x", "float64", "1", "->", "action", "float32"] for line in lines)
    assert "dropped  t: its rate is kept" in lines
    assert "dropped  gripper: not in the mapping" in lines


@pytest.mark.parametrize("kind", ["ends", "marks", "ids", "kinds"])
def test_files_of_several_episodes_are_split(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state, command = rng.normal(size=(10, 7)), rng.normal(size=(10, 2)).astype(np.float32)
    done, count = np.isin(np.arange(10), [3, 9]), np.arange(10)
    kinds = np.array([0, 1, 1, 2, 0, 1, 1, 1, 1, 2])
    parts = {"ends": {"stop": np.array([4, 10])}, "marks": {"stop": done}, "ids": {"id": np.repeat([7, 3], [4, 6])}}
    parts["kinds"] = {"step_type": kinds}
    np.savez(tmp_path / "all.npz", state=state, command=command, done=done, count=count, **parts[kind])
    keys = {"pos": "state[0:3]", "grip": "state[6]", "action": "command", "terminated": "done", "count": "count"}
    split = {"ids": {"episode": "id"}, "kinds": {"ends": "step_type == 2"}}.get(kind, {"ends": "stop"})
    (tmp_path / "m.yaml").write_text(yaml.safe_dump({"episodes": "*.npz", "keys": keys, "control_hz": 30, **split}))
    with convert(str(tmp_path), tmp_path / "a.zarr", mapping=str(tmp_path / "m.yaml")) as buffer:
        assert buffer.episode_ends.tolist() == [4, 10]
        np.testing.assert_array_equal(buffer["pos"], state[:, :3].astype(np.float32))
        np.testing.assert_array_equal(buffer["grip"], state[:, 6:].astype(np.float32))
        np.testing.assert_array_equal(buffer["terminated"], done)
        np.testing.assert_array_equal(buffer["count"], count[:, None])  # whole numbers stay whole
        assert buffer.attrs["provenance"]["control_hz"] == 30


def test_films_give_a_frame_a_step(recordings: Path, tmp_path: Path) -> None:
    (recordings / "video").mkdir()
    for i, steps in enumerate(LENGTHS):
        save_video((np.full((32, 48, 3), 40 * step, np.uint8) for step in range(steps)), _film(recordings, i), fps=25)
    changed(recordings, images={"front": "video/{episode}.mp4"})
    with convert(str(recordings), tmp_path / "a.zarr") as buffer:
        assert buffer.shape("front") == (32, 48, 3)
        means = buffer["front"].mean(axis=(1, 2, 3))  # the codec loses something
        np.testing.assert_allclose(means, 40 * np.concatenate([np.arange(n) for n in LENGTHS]), atol=6)
    for frames, message in ((5, "001.mp4 has 5 for 6 steps"), (7, "001.mp4 has more than 6 for 6 steps")):
        save_video((np.zeros((32, 48, 3), np.uint8) for _ in range(frames)), _film(recordings, 1), fps=25)
        with pytest.raises(DataError, match=message):
            convert(str(recordings), tmp_path / "b.zarr")
    _film(recordings, 1).write_bytes(_film(recordings, 1).read_bytes()[:600])
    with pytest.raises(DataError, match=r"001\.mp4 is damaged or no film"):
        convert(str(recordings), tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


def _film(folder: Path, i: int) -> Path:
    return folder / f"video/{i:03}.mp4"


def test_pictures_of_16_bit_stay_16_bit(recordings: Path, tmp_path: Path) -> None:
    for i, steps in enumerate(LENGTHS):
        for step in range(steps):
            depth = np.arange(120, dtype=np.uint16).reshape(10, 12) * 500 + step
            Image.fromarray(depth).save(recordings / f"images/{i:03}/depth_{step}.png")
    changed(recordings, images={"depth": "images/{episode}/depth_*.png"})
    with convert(str(recordings), tmp_path / "a.zarr") as buffer:
        assert (buffer.dtype("depth"), buffer.shape("depth")) == (np.uint16, (10, 12, 1))
        assert int(buffer["depth"].max()) == 119 * 500 + 5


def _cut(folder: Path) -> None:
    file = folder / "episodes/001.csv"
    file.write_text(file.read_text()[:-40])


def _replaced(old: str, new: str):
    def change(folder: Path) -> None:
        file = folder / "episodes/001.csv"
        file.write_text(file.read_text().replace(old, new, 1))

    return change


def _slower(folder: Path) -> None:
    rows = table(folder, 1)
    rows["t"] = np.arange(6) / 10
    lines = [",".join(rows), *(",".join(map(repr, map(float, row))) for row in zip(*rows.values(), strict=True))]
    (folder / "episodes/001.csv").write_text("\n".join(lines))


def _with_semicolons(folder: Path) -> None:
    file = folder / "episodes/001.csv"
    file.write_text(file.read_text().replace(",", ";"))


def _unfinite(folder: Path) -> None:
    file = folder / "episodes/001.csv"
    lines = file.read_text().splitlines()
    lines[3] = ",".join("nan" if name == "y" else word for name, word in zip(NAMES, lines[3].split(","), strict=True))
    file.write_text("\n".join(lines))


FAULTS = [
    (_cut, "001.csv: row 6 has 4 fields, but its header 9"),
    (_replaced("cmd_x", "cmd_u"), "001.csv: expected the columns x, y, z"),
    (_replaced("\n1000000000", "\nlater"), "001.csv: 't' must hold numbers, but row 1 holds 'later"),
    (_slower, "has 10 steps a second, expected 2"),
    (_slower, "keep the times as a key (time_s, in seconds) instead of time:, then dp-convert --resample"),
    (_with_semicolons, "001.csv: expected columns separated by commas"),
    (_unfinite, "001.csv: 'agent_pos' must be finite, but step 2 holds NaN or infinity (1 of 6 steps)"),
    (lambda f: (f / "episodes/001.csv").write_text(",".join(NAMES) + "\n"), "001.csv has no steps; remove it"),
    (lambda f: (f / "episodes/001.csv").write_text(""), "001.csv: expected the columns"),
    (lambda f: (f / "episodes/001.csv").write_bytes(b"\xff\xfe\x00"), "001.csv: expected text in UTF-8"),
    (lambda f: (f / "images/001/front_00003.png").unlink(), "5 pictures for 6 steps"),
    (lambda f: (f / "images/001/front_00003.png").write_bytes(b"\x89PNG"), "front_00003.png is damaged or no picture"),
    (
        lambda f: Image.new("RGB", (9, 9)).save(f / "images/001/front_00003.png"),
        "but front_00003.png has uint8 (9, 9, 3)",
    ),
    (lambda f: changed(f, images={"front": "pictures/{episode}/*.png"}), "no file matches pictures/000/*.png"),
    (lambda f: changed(f, images={"front": "../{episode}/*.png"}), "expected a path inside the folder, but got '../"),
    (lambda f: changed(f, images={"front": "a\\..\\..\\*.png"}), "expected a path inside the folder"),
    (lambda f: changed(f, episodes="/etc/*.csv"), "expected a path inside the folder, but got '/etc/*.csv'"),
    (lambda f: changed(f, episodes="C:/data/*.csv"), "expected a path inside the folder, but got 'C:/data"),
    (lambda f: changed(f, keys={"../x": "x"}), "but got '../x'; rename it"),
    (lambda f: changed(f, keys={"front": "x"}), "'front' stands under keys and images"),
    (lambda f: changed(f, keys={"action": "x[0:2]"}), "'x' has 1 numbers, too few for [0:2]"),
    (lambda f: changed(f, keys={"action": 3}), "keys.action: expected a column"),
    (lambda f: changed(f, keys={"terminated": "x"}), "'terminated' must hold zeros and ones"),
    (lambda f: changed(f, keys=None), "expected episodes, keys and some of images"),
    (lambda f: changed(f, kyes={}), "expected episodes, keys and some of images"),
    (lambda f: changed(f, control_hz="fast"), "control_hz must be a number above 0, but got 'fast'"),
    (lambda f: changed(f, time_unit="min"), "time_unit must be one of s, ms, us, ns, but got 'min'"),
    (lambda f: changed(f, ends="x", episode="y"), "ends and episode say the same twice"),
    (lambda f: changed(f, ends="x"), "'x' must rise from at least 1"),
    (lambda f: changed(f, ends="x == last"), "ends must be a column, or like 'step_type == 2', but got 'x == last'"),
    (lambda f: changed(f, episodes="*.csv"), "no file matches *.csv"),
    (lambda f: changed(f, episodes="images/000/*.png"), "expected a file of .csv or .npz"),
    (lambda f: (f / "mapping.yaml").write_text("keys: ["), "no YAML"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_folder_faults_are_one_line_and_leave_nothing(spoil, message: str, recordings: Path, tmp_path: Path) -> None:
    spoil(recordings)
    with pytest.raises(DiffusionPolicyError) as raised:
        convert(str(recordings), tmp_path / "a.zarr")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["recordings"]


def test_npz_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", action=np.zeros((900, 2)))
    (tmp_path / "mapping.yaml").write_text("{episodes: '*.npz', keys: {action: action}}")
    content = (tmp_path / "0.npz").read_bytes()
    (tmp_path / "0.npz").write_bytes(content[:4000])
    with pytest.raises(DataError, match="damaged or no npz"):
        convert(str(tmp_path), tmp_path / "a.zarr")


def test_folder_without_a_mapping_says_what_to_write(recordings: Path, tmp_path: Path, capsys) -> None:
    (recordings / "mapping.yaml").rename(tmp_path / "mine.yaml")
    with pytest.raises(MissingFileError, match=r"mapping\.yaml does not exist; write which columns are which key"):
        convert(str(recordings), tmp_path / "a.zarr")  # its files lie in folders of their own
    words = [str(recordings), str(tmp_path / "a.zarr"), "--format", "folder", "--mapping", str(tmp_path / "mine.yaml")]
    assert main(words) == 0
    assert "2 episodes, 10 steps" in capsys.readouterr().out
