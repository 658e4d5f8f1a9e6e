"""LeRobot's data sets read: fixtures that lerobot 0.4.4 itself wrote, a v2.1 by its published layout, and damage."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.data.formats.convert import convert, guess_format, prepare
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import DataError, DiffusionPolicyError, MissingFileError
from tests.data.formats.lerobot_peer import FILM_SIZE, FPS, LENGTHS, TASKS, frames
from tests.data.formats.lerobot_v21 import build, filmed

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
FIXTURES = Path(__file__).parents[2] / "fixtures"
DATA = "data/chunk-000/file-000.parquet"
META = "meta/episodes/chunk-000/file-000.parquet"


def unpacked(path: Path, name: str = "lerobot_v30.zip") -> Path:
    with zipfile.ZipFile(FIXTURES / name) as archive:
        archive.extractall(path)
    return path


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_lerobot_episodes_are_frame_for_frame_what_was_recorded(version: str, tmp_path: Path) -> None:
    source = unpacked(tmp_path / "toy") if version == "v3.0" else build(tmp_path / "toy")
    assert guess_format(str(source)) == "lerobot"
    with convert(str(source), tmp_path / "a.zarr") as buffer:
        assert buffer.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
        for i, made in enumerate(frames()):
            found = buffer.get_episode(i)
            np.testing.assert_array_equal(found["front"], made["observation.images.front"])
            for key, name in (("state", "observation.state"), ("action", "action")):
                np.testing.assert_array_equal(found[key], made[name])
            np.testing.assert_array_equal(found["reward"], made["next.reward"][:, 0])
            np.testing.assert_array_equal(found["success"], made["next.success"][:, 0])
            last = [False] * (LENGTHS[i] - 1)
            assert found["terminated"].tolist() == [*last, i == 1]  # successful
            assert found["truncated"].tolist() == [*last, i != 1]
            assert {TASKS[i]} == {buffer.attrs["provenance"]["tasks"][j] for j in found["task_index"]}
        told = buffer.attrs["provenance"]
    assert (told["control_hz"], told["lerobot"]) == (FPS, version)
    assert told["names"] == {"action": ["x", "y"]}
    assert told.get("robot_type") == (None if version == "v3.0" else "toy")


def test_lerobot_preview_says_what_becomes_of_every_feature(tmp_path: Path) -> None:
    lines = preview(prepare(str(unpacked(tmp_path / "toy")), tmp_path / "a.zarr"))
    assert lines[0].endswith("toy; 3 episodes, 15 steps, 10 steps a second")
    table = [line.split() for line in lines]
    shown = ["observation.images.front", "image", "12x10x3", "->", "front", "uint8", "12x10x3", "->", "data/front"]
    assert shown in table
    assert "dropped  timestamp: made for LeRobot" in lines


def test_lerobot_video_is_read_by_time(tmp_path: Path) -> None:
    source = unpacked(tmp_path / "toy", "lerobot_v30_video.zip")
    lines = preview(prepare(str(source), tmp_path / "a.zarr"))
    assert any("decoded; its codec has lost something" in line for line in lines)
    with convert(str(source), tmp_path / "a.zarr") as buffer:
        for i, made in enumerate(frames(FILM_SIZE)):
            found = buffer.get_episode(i)
            given = made["observation.images.front"]
            np.testing.assert_array_equal(found["action"], made["action"])
            assert found["front"].shape == given.shape
            # h.264 at its default quality; the shades of neighbouring frames are 30 apart
            assert np.abs(found["front"].astype(int) - given).max() < 10


@pytest.mark.parametrize("times", [1, 2])
def test_lerobot_v21_films_are_read_by_time_whatever_their_own_rate(times: int, tmp_path: Path) -> None:
    source = filmed(build(tmp_path / "toy"), times=times)
    with convert(str(source), tmp_path / "a.zarr") as buffer:
        for i, made in enumerate(frames(FILM_SIZE)):
            given = made["observation.images.front"]
            assert np.abs(buffer.get_episode(i)["front"].astype(int) - given).max() < 10


def test_lerobot_keys_that_would_collide_keep_their_whole_name(tmp_path: Path) -> None:
    source = unpacked(tmp_path / "toy")
    rename(source, "observation.images.front", "observation.images.state")
    with convert(str(source), tmp_path / "a.zarr") as buffer:
        assert buffer.shape("state") == (3,)
        assert buffer.shape("observation_images_state") == (12, 10, 3)


def info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    told = json.loads(path.read_text())
    told["features"] |= changes.pop("features", {})
    path.write_text(json.dumps({**told, **changes}))


def rows(root: Path, change, path: str = DATA) -> None:
    """Rewrites a table; `change` is given {name: list}."""
    table = pq.read_table(root / path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    types = {name: table.schema.field(name).type for name in columns}
    change(columns)
    made = {name: typed(values, types[name]) for name, values in columns.items()}
    pq.write_table(pa.table(made), root / path)


def typed(values: list, kind):
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # which is what is to be tested
        return pa.array(values)


def rename(root: Path, old: str, new: str) -> None:
    path = root / "meta/info.json"
    path.write_text(path.read_text().replace(f'"{old}"', f'"{new}"'))
    table = pq.read_table(root / DATA)
    pq.write_table(table.rename_columns([new if name == old else name for name in table.column_names]), root / DATA)


def cut(root: Path, path: str) -> None:
    content = (root / path).read_bytes()
    (root / path).write_bytes(content[: len(content) // 2])


def spoil_picture(columns: dict, *, content: bytes | None) -> None:
    columns["observation.images.front"][9] = {"bytes": content, "path": "/etc/passwd"}


def put(columns: dict, name: str, values) -> None:
    columns[name] = values if isinstance(values, list) else [values] * len(columns["index"])


def drop_rows(columns: dict) -> None:
    for values in columns.values():
        del values[-1]


def last_value(columns: dict, name: str, value: object) -> None:
    columns[name][-1] = value


WIDE = {"dtype": "float32", "shape": [4], "names": None}
FILM = {"dtype": "video", "shape": [12, 10, 3], "names": None}
FAST = {**FILM, "info": {"video.fps": 30.0}}
SMALL = {"dtype": "image", "shape": [9, 9, 3], "names": None}
HUGE = {"dtype": "image", "shape": [2**30, 2**30, 3], "names": None}
FAULTS = [
    (lambda r: cut(r, DATA), "file-000.parquet: damaged or no parquet"),
    (lambda r: cut(r, META), "file-000.parquet: damaged or no parquet"),
    (lambda r: cut(r, "meta/info.json"), "info.json: damaged or no JSON"),
    (lambda r: (r / DATA).unlink(), "data holds no parquet files; the data set is incomplete"),
    (lambda r: (r / "meta/tasks.parquet").unlink(), "tasks.parquet does not exist"),
    (lambda r: (r / META).unlink(), "holds no table of episodes"),
    (lambda r: (r / "meta/info.json").write_text("[]"), "expected a JSON object, but got list"),
    (lambda r: rows(r, lambda c: c.pop("action")), "expected the column 'action' as info.json says"),
    (lambda r: rows(r, lambda c: c.pop("length"), META), "but length is missing"),
    (lambda r: rows(r, lambda c: put(c, "action", "x")), "'action' must hold float32 as info.json says, but got"),
    (lambda r: rows(r, lambda c: put(c, "next.done", 1.5)), "'next.done' must hold bool as info.json says"),
    (lambda r: rows(r, lambda c: last_value(c, "next.reward", None)), "'next.reward' must hold a value in every row"),
    (lambda r: info(r, features={"action": WIDE}), "'action' must have shape (4,) as info.json says, but has 2"),
    (lambda r: rows(r, lambda c: spoil_picture(c, content=b"GIF89a")), "frame 1: damaged or no picture"),
    (lambda r: rows(r, lambda c: spoil_picture(c, content=None)), "one lies in another file; embed them"),
    (lambda r: info(r, features={"observation.images.front": SMALL}), "must be 9 x 9 pixels"),
    (lambda r: info(r, features={"observation.images.front": HUGE}), "must be 1073741824 x 1073741824 pixels"),
    (lambda r: info(r, fps=float("inf")), "expected frames a second above 0, but got fps inf"),
    (lambda r: info(r, fps=20), "its time stamps run at 10 frames a second, but info.json says 20"),
    (lambda r: info(r, features={"observation.images.top": FAST}), "has 30 frames a second, the data set 10"),
    (lambda r: info(r, fps=0), "expected frames a second above 0"),
    (lambda r: info(r, fps="fast"), "expected what LeRobot writes, but ValueError"),
    (lambda r: rows(r, lambda c: last_value(c, "length", 0), META), "episode 2 has no frames"),
    (lambda r: rows(r, lambda c: last_value(c, "length", 6), META), "its lengths sum to 14, but info.json says 15"),
    (lambda r: info(r, total_episodes=0), "expected episodes with frames"),
    (lambda r: info(r, total_episodes=4), "expected episodes 0 to 3 as info.json says, but found 3"),
    (lambda r: rows(r, drop_rows), "expected 1 more rows, but its data files end"),
    (lambda r: rows(r, lambda c: last_value(c, "episode_index", 1)), "expected 7 rows of it, but some are of others"),
    (lambda r: info(r, features={"../x": WIDE}), "but got '../x'; rename it"),
    (lambda r: info(r, features={"x": {**WIDE, "dtype": "object"}}), "'x' must hold numbers or pictures"),
    (lambda r: info(r, features={"x": {"dtype": "image", "shape": [3]}}), "'x' cannot be image of shape (3,)"),
    (lambda r: info(r, codebase_version="v9.0"), "expected version v2.0, v2.1, v3.0, but got v9.0"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_lerobot_faults_are_one_line_and_leave_nothing(spoil, message: str, tmp_path: Path) -> None:
    spoil(unpacked(tmp_path / "toy"))
    with pytest.raises(DiffusionPolicyError) as raised:
        convert(str(tmp_path / "toy"), tmp_path / "new" / "a.zarr", name="lerobot")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("meta/episodes.jsonl", "{", "episodes.jsonl: line 1: damaged or no JSON"),
        ("meta/tasks.jsonl", '{"task": "x"}', "tasks.jsonl: expected texts counted from 0"),
        ("data/chunk-001/episode_000002.parquet", "", "damaged or no parquet"),
        ("data/chunk-001/episode_000002.parquet", None, "episode_000002.parquet does not exist"),
    ],
)
def test_lerobot_v21_faults_are_one_line(path: str, text: str | None, message: str, tmp_path: Path) -> None:
    root = build(tmp_path / "toy")
    (root / path).unlink()
    if text is not None:
        (root / path).write_text(text)
    with pytest.raises(DiffusionPolicyError, match=message):
        convert(str(root), tmp_path / "a.zarr")
    assert [each.name for each in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("../../{episode_index}", "data_path: a name must consist of letters"),
        ("/etc/{episode_index}", "data_path: a name must consist of letters"),
        ("data/{episode_index.__class__}", "a path may be filled with"),
        ("data/{episode_index:0999999999d}", "a path may be filled with"),
        ("data/{}", "a path may be filled with"),
        ("{", "is no path to be filled"),
    ],
)
def test_lerobot_paths_stay_in_the_data_set(template: str, message: str, tmp_path: Path) -> None:
    info(build(tmp_path / "toy"), data_path=template)
    film = unpacked(tmp_path / "film", "lerobot_v30_video.zip")
    info(film, video_path=template.replace("episode_index", "file_index"))
    for name, what in (("toy", message), ("film", message.replace("data_path", "video_path"))):
        with pytest.raises(DataError, match=what) as raised:
            convert(str(tmp_path / name), tmp_path / "a.zarr")
        assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film", "toy"]


def test_lerobot_video_that_is_cut_short_or_gone_is_one_line(tmp_path: Path) -> None:
    root = unpacked(tmp_path / "toy", "lerobot_v30_video.zip")
    path = "videos/observation.images.front/chunk-000/file-000.mp4"
    cut(root, path)
    with pytest.raises(
        DataError, match=r"file-000\.mp4: expected frame \d, but the video ends before \(.*; copy it again"
    ):
        convert(str(root), tmp_path / "a.zarr")
    rows(root, lambda columns: last_value(columns, "videos/observation.images.front/from_timestamp", math.nan), META)
    with pytest.raises(DataError, match="episode 2 must begin at a second of its video, but got nan"):
        convert(str(root), tmp_path / "a.zarr")
    rows(root, lambda columns: last_value(columns, "videos/observation.images.front/from_timestamp", 99.0), META)
    (root / path).unlink()
    with pytest.raises(MissingFileError, match=r"file-000\.mp4 does not exist"):
        convert(str(root), tmp_path / "a.zarr")
    assert [each.name for each in tmp_path.iterdir()] == ["toy"]
