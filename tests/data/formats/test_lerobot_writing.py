"""LeRobot's data sets written: their structure, their statistics, and our own back as they were."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_policy.data.formats.convert import convert, prepare, translate
from diffusion_policy.data.formats.lerobot import files, stats
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import ConfigError, DataError
from tests.data.formats.lerobot_peer import frames
from tests.data.formats.toys import LENGTHS, episodes, same, store

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
FIXTURES = Path(__file__).parents[2] / "fixtures"
FACTS = {"env_id": "Toy-v0", "kwargs": {"control_hz": 20}}


def rich(*, picture: bool = True) -> list[dict[str, np.ndarray]]:
    """Returns episodes with all that may be in a store: dtypes, scalars, floats that are pictures, several cameras."""
    made = episodes(picture=picture)
    for i, episode in enumerate(made):
        steps = len(episode["action"])
        t = np.arange(steps)
        episode["height"] = np.full(steps, i + 1 / 3)  # float64, (T,)
        episode["grasped"] = t % 2 == 0
        episode["count"] = t[:, None] + 2**60
        episode["keypoints"] = np.linspace(0, 1, steps * 8).reshape(steps, 4, 2).astype(np.float32)
        if picture:
            episode["wrist"] = np.rint(np.linspace(0, 255, steps * 8 * 9 * 3)).reshape(steps, 8, 9, 3).astype("f4")
            episode["depth"] = np.arange(steps * 64).reshape(steps, 8, 8, 1).astype(np.uint8)
    return made


@pytest.mark.parametrize("picture", [True, False])
def test_ours_to_lerobot_and_back_is_exact(picture: bool, tmp_path: Path) -> None:
    ours = store(tmp_path / "a.zarr", rich(picture=picture), **FACTS)
    written = translate(str(ours), tmp_path / "b", to="lerobot", state="agent_pos,height")
    assert (written.format, written.num_episodes, written.num_steps) == ("lerobot", 3, sum(LENGTHS))
    with convert(str(tmp_path / "b"), tmp_path / "c.zarr") as back:
        told = back.attrs["provenance"]
    same(ours, tmp_path / "c.zarr")
    assert {name: told[name] for name in FACTS} == FACTS
    assert (told["control_hz"], told["tasks"]) == (20, ["Toy-v0"])


def test_what_follows_a_step_is_kept_where_the_next_frame_shows_something_else(tmp_path: Path) -> None:
    made = episodes()
    made[1]["next_front"] = made[1]["next_front"].copy()
    made[1]["next_front"][0] = 7
    made.append({key: values[:1] for key, values in made[0].items()})  # of one step
    ours = store(tmp_path / "a.zarr", made, **FACTS)
    translate(str(ours), tmp_path / "b", to="lerobot")
    beside = pq.read_table(tmp_path / "b/meta/diffusion_policy_next.parquet")
    assert beside["index"].to_pylist() == [4, 5, 7, 14, 15]
    convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    same(ours, tmp_path / "c.zarr")
    pq.write_table(beside.slice(0, 3), tmp_path / "b/meta/diffusion_policy_next.parquet")
    with pytest.raises(DataError, match=r"episode 2: expected 'next_front' of its last step in .* but it is missing"):
        convert(str(tmp_path / "b"), tmp_path / "d.zarr")


def test_lerobot_to_ours_to_lerobot_is_exact(tmp_path: Path) -> None:
    with zipfile.ZipFile(FIXTURES / "lerobot_v30.zip") as archive:
        archive.extractall(tmp_path / "a")
    convert(str(tmp_path / "a"), tmp_path / "b.zarr")
    translate(str(tmp_path / "b.zarr"), tmp_path / "c", to="lerobot")
    data = "data/chunk-000/file-000.parquet"
    one, other = pq.read_table(tmp_path / "a" / data), pq.read_table(tmp_path / "c" / data)
    for name in set(one.column_names) - {"observation.images.front"}:
        assert one.schema.field(name).type == other.schema.field(name).type
        assert one[name].to_pylist() == other[name].to_pylist()
    for i, row in enumerate(other["observation.images.front"].to_pylist()):
        (tmp_path / "x.png").write_bytes(row["bytes"])
        given = np.concatenate([made["observation.images.front"] for made in frames()])[i]
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), given)
    texts = [pq.read_table(tmp_path / place / "meta/tasks.parquet").to_pylist() for place in "ac"]
    assert texts[0] == texts[1]
    infos = [json.loads((tmp_path / place / "meta/info.json").read_text()) for place in "ac"]
    for name, told in infos[0]["features"].items():
        assert {**infos[1]["features"][name], "names": None} == {**told, "names": None}
    for name in set(infos[0]) - {"features"}:
        assert infos[0][name] == infos[1][name]
    assert infos[1]["features"]["action"]["names"] == ["x", "y"]


def test_statistics_are_those_of_lerobot_but_for_the_deviation_of_pictures(tmp_path: Path) -> None:
    with zipfile.ZipFile(FIXTURES / "lerobot_v30.zip") as archive:
        archive.extractall(tmp_path / "a")
    theirs = json.loads((tmp_path / "a/meta/stats.json").read_text())
    total = stats.Total()
    for made in frames():
        told = {name: stats.of_numbers(values) for name, values in made.items() if "images" not in name}
        total.add({**told, "observation.images.front": stats.of_pictures(made["observation.images.front"])})
    for name, each in total.result().items():
        for kind, values in each.items():
            given = np.array(theirs[name][kind])
            assert values.shape == given.shape
            if kind == "std" and "images" in name:
                # 0.4.4 squares uint8 in uint8: noise of all shades cannot deviate by 0.03
                assert given.max() < 0.03
                pixels = np.concatenate([made[name] for made in frames()]) / 255
                np.testing.assert_allclose(values.ravel(), pixels.std(axis=(0, 1, 2)), rtol=1e-6)
            else:
                np.testing.assert_allclose(values, given, rtol=1e-5, atol=2e-5, err_msg=f"{name} {kind}")


def test_statistics_of_few_many_and_constant_numbers() -> None:
    single = stats.of_numbers(np.array([[2.0, 5.0]]))
    assert single["q01"].tolist() == single["q99"].tolist() == [2, 5]
    constant = stats.of_numbers(np.full((50, 1), 1e9))
    assert constant["q50"].tolist() == [1e9]
    values = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
    found = stats.of_numbers(values)
    for kind, q in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(found[kind], np.quantile(values, q, axis=0), atol=0.05)
    assert stats.of_pictures(np.zeros((400, 8, 8, 3), np.uint8))["count"].tolist() == [100]
    assert stats.of_pictures(np.zeros((1000, 8, 8, 3), np.uint8))["count"].tolist() == [177]


def test_states_are_chosen_and_told_apart(tmp_path: Path) -> None:
    ours = store(tmp_path / "a.zarr", rich(), **FACTS)
    lines = preview(prepare(str(ours), tmp_path / "b", to="lerobot"))
    table = {line.split()[0]: line for line in lines}
    assert "-> observation.state " in table["data/agent_pos"] + " "
    assert "-> observation.environment_state" in table["data/keypoints"]
    assert "LeRobot's policies read observation.state only" in table["data/height"]
    translate(str(ours), tmp_path / "b", to="lerobot", state="height,agent_pos", environment_state="keypoints")
    told = json.loads((tmp_path / "b/meta/info.json").read_text())["features"]
    names = ["height_0", *(f"agent_pos_{i}" for i in range(4))]
    assert told["observation.state"] == {"dtype": "float64", "shape": [5], "names": names}
    for options, message in (
        ({"state": "nothing"}, "--state must name vectors of floats that are observed, each once, but got 'nothing'"),
        ({"state": "agent_pos,agent_pos"}, "--state must name vectors"),
        ({"state": "grasped"}, "there are: agent_pos, height, keypoints"),
        ({"environment_state": "agent_pos"}, "'agent_pos' can be of one state only"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(str(ours), tmp_path / "c", to="lerobot", **options)


def test_data_files_are_cut_at_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FILE_MB", 4e-3)
    monkeypatch.setattr(files, "FILES_PER_CHUNK", 2)
    ours = store(tmp_path / "a.zarr", episodes(), **FACTS)
    translate(str(ours), tmp_path / "b", to="lerobot")
    paths = sorted(str(path.relative_to(tmp_path / "b/data")) for path in (tmp_path / "b/data").rglob("*.parquet"))
    assert paths == ["chunk-000/file-000.parquet", "chunk-000/file-001.parquet", "chunk-001/file-000.parquet"]
    table = pq.read_table(tmp_path / "b/meta/episodes/chunk-000/file-000.parquet")
    assert table["data/chunk_index"].to_pylist() == [0, 0, 1]
    assert table["data/file_index"].to_pylist() == [0, 1, 0]
    assert table["dataset_to_index"].to_pylist() == np.cumsum(LENGTHS).tolist()
    convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    same(ours, tmp_path / "c.zarr")


def test_tasks_are_told_and_counted(tmp_path: Path) -> None:
    ours = store(tmp_path / "a.zarr", episodes(), **FACTS)
    translate(str(ours), tmp_path / "b", to="lerobot", task="push it")
    with convert(str(tmp_path / "b"), tmp_path / "c.zarr") as back:
        assert back.attrs["provenance"]["tasks"] == ["push it"]
    made = [{**episode, "task_index": np.full(len(episode["action"]), i)} for i, episode in enumerate(episodes())]
    several = store(tmp_path / "d.zarr", made, control_hz=10, tasks=["a", "b", "c"])
    translate(str(several), tmp_path / "e", to="lerobot")
    table = pq.read_table(tmp_path / "e/meta/episodes/chunk-000/file-000.parquet")
    assert table["tasks"].to_pylist() == [["a"], ["b"], ["c"]]
    convert(str(tmp_path / "e"), tmp_path / "f.zarr")
    same(several, tmp_path / "f.zarr")
    with pytest.raises(ConfigError, match="--task is of no use for data with 'task_index'"):
        prepare(str(several), tmp_path / "g", to="lerobot", task="x")
    few = store(tmp_path / "h.zarr", made, control_hz=10, tasks=["a", "b"])
    with pytest.raises(DataError, match=r"episode 2: 'task_index' must be in \[0, 1\], got 2"):
        translate(str(few), tmp_path / "g", to="lerobot")
    assert not (tmp_path / "g").exists()


def test_lerobot_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    steps = {"action": np.zeros((2, 1), np.float32), "img": np.full((2, 8, 8, 3), 0.5, np.float32)}
    ours = store(tmp_path / "a.zarr", [steps], **FACTS)
    with pytest.raises(DataError, match="episode 0: 'img' must hold pictures of whole numbers 0-255"):
        translate(str(ours), tmp_path / "b", to="lerobot")
    lone = store(tmp_path / "c.zarr", [{"img": np.zeros((2, 8, 8, 3), np.uint8)}], **FACTS)
    with pytest.raises(DataError, match="need actions, but there is no 'action' in img"):
        translate(str(lone), tmp_path / "b", to="lerobot")
    with pytest.raises(ConfigError, match="must know the frames a second; say them with --control-hz"):
        translate(str(store(tmp_path / "d.zarr", [{"action": np.zeros((2, 1))}])), tmp_path / "b", to="lerobot")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "c.zarr", "d.zarr"]


def test_lerobot_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = store(tmp_path / "a.zarr", episodes(), **FACTS)
    translate(str(ours), tmp_path / "b", to="lerobot")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for source, to in ((ours, "lerobot"), (tmp_path / "b", "zarr")):
        with pytest.raises(ConfigError, match=r"need pyarrow, .* pip install 'diffusion-policy\[lerobot\]'"):
            prepare(str(source), tmp_path / "c", to=to)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told | {"version": 99}, "written by a later version"),
        (lambda told: {"version": 1}, "its record 'diffusion_policy' is damaged"),
        (lambda told: told | {"places": 3}, "delete it to read the data as LeRobot's"),
        (lambda told: told | {"places": {"action": ["gone", 0, 1]}}, "expected 'gone' as our record says"),
        (lambda told: told | {"places": {"action": ["action", 0, 1]}}, "expected agent_pos.* as its record says"),
    ],
)
def test_record_that_does_not_fit_is_one_line(change, message: str, tmp_path: Path) -> None:
    translate(str(store(tmp_path / "a.zarr", episodes(), **FACTS)), tmp_path / "b", to="lerobot")
    path = tmp_path / "b/meta/diffusion_policy.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(change(told)))
    with pytest.raises(DataError, match=message) as raised:
        convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "c.zarr").exists()
    path.unlink()
    with convert(str(tmp_path / "b"), tmp_path / "c.zarr") as back:
        assert {"state", "front", "action", "reward"} < set(back.keys())


def test_a_clock_is_no_state_though_it_is_the_only_vector(tmp_path: Path) -> None:
    made = []
    for episode in episodes(picture=True):
        steps = len(episode["action"])
        made.append({"action": episode["action"], "front": episode["front"], "time_s": np.arange(steps) / 20.0})
    placed = prepare(str(store(tmp_path / "a.zarr", made, **FACTS)), tmp_path / "b", to="lerobot").placed
    assert {each.name: each.becomes for each in placed}["time_s"] == "observation.time_s"


def test_frames_that_are_missing_by_their_time_stamps_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = [{"state": np.zeros((200, 2), np.float32), "action": np.zeros((200, 2), np.float32)} for _ in range(2)]
    translate(str(store(tmp_path / "a.zarr", made, control_hz=20)), tmp_path / "b", to="lerobot")
    convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    assert "time stamps jump" not in caplog.text
    (file,) = (tmp_path / "b/data").rglob("*.parquet")
    table = pq.read_table(file)
    times = table["timestamp"].to_numpy().copy()
    times[300:] += 0.3  # within the second episode
    table = table.set_column(table.schema.names.index("timestamp"), "timestamp", pa.array(times))
    pq.write_table(table, file)
    convert(str(tmp_path / "b"), tmp_path / "d.zarr")
    assert "episode 1: its time stamps jump by 7 steps after frame 99 (1 such jumps)" in caplog.text


def test_statistics_of_what_has_thousands_of_numbers_are_of_all_together(tmp_path: Path) -> None:
    """One for each pixel of depth pictures would outgrow the data."""
    rng = np.random.default_rng(0)
    made = []
    for steps in LENGTHS:
        depth = rng.integers(0, 4000, (steps, 48, 64, 1)).astype(np.uint16)
        made.append({"state": rng.random((steps, 2)), "action": rng.random((steps, 2)), "depth": depth})
    ours = store(tmp_path / "a.zarr", made, **FACTS)
    translate(str(ours), tmp_path / "b", to="lerobot")
    told = json.loads((tmp_path / "b/meta/stats.json").read_text())["observation.depth"]
    every = np.concatenate([each["depth"].ravel() for each in made]).astype(np.float64)
    assert (told["min"], told["max"], told["count"]) == ([every.min()], [every.max()], [sum(LENGTHS)])
    np.testing.assert_allclose(told["mean"], [every.mean()], rtol=1e-6)
    np.testing.assert_allclose(told["std"], [every.std()], rtol=1e-6)
    assert sum(path.stat().st_size for path in (tmp_path / "b/meta").rglob("*.*")) < 300_000
    convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    same(ours, tmp_path / "c.zarr")
