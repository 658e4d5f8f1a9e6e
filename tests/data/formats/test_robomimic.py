"""robomimic's HDF5 files, laid out as its `dataset_states_to_obs.py` and `split_train_val.py` (0.3.0) write them."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffusion_policy import ReplayBuffer
from diffusion_policy.data.formats.convert import convert, guess_format, prepare, translate
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import ConfigError, DataError, StorageError
from tests.data.formats.toys import LENGTHS, episodes, same, store

h5py = pytest.importorskip("h5py")
LIFT = {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}


def lift(path: Path, counts=(4, 6, 5), env_args=LIFT) -> Path:
    """Writes a file with the demonstrations in an order of names that is not that of their numbers."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i, steps in enumerate(counts):
            demo = data.create_group(f"demo_{i + 8}")  # demo_10 sorts before demo_8 by name
            seen = {"robot0_eef_pos": rng.normal(size=(steps + 1, 3)), "object": rng.normal(size=(steps + 1, 10))}
            seen["agentview_image"] = rng.integers(0, 256, (steps + 1, 12, 12, 3)).astype(np.uint8)
            demo["actions"] = rng.uniform(-1, 1, (steps, 7))
            demo["states"] = rng.normal(size=(steps, 32))
            demo["rewards"] = (np.arange(steps) >= steps - 2).astype(float)
            demo["dones"] = (np.arange(steps) >= (steps - 2 if i else steps)).astype(np.int64)
            for name, values in seen.items():
                demo[f"obs/{name}"], demo[f"next_obs/{name}"] = values[:-1], values[1:]
            demo.attrs["num_samples"], demo.attrs["model_file"] = steps, "<mujoco/>"
        data.attrs["total"], data.attrs["env_args"] = sum(counts), json.dumps(env_args, indent=4)
        file["mask/train"] = np.array(["demo_10", "demo_8"], dtype="S")
        file["mask/valid"] = np.array(["demo_9"], dtype="S")
    return path


def test_robomimic_demonstrations_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    source = lift(tmp_path / "lift.hdf5")
    assert guess_format(str(source)) == "robomimic"
    with convert(str(source), tmp_path / "a.zarr") as buffer, h5py.File(source) as file:
        assert buffer.num_episodes == 3
        for i, demo in enumerate(("demo_8", "demo_9", "demo_10")):
            found, given = buffer.get_episode(i), file["data"][demo]
            for name in ("robot0_eef_pos", "object", "agentview_image"):
                for ours, theirs in ((name, f"obs/{name}"), (f"next_{name}", f"next_obs/{name}")):
                    dtype = np.uint8 if "image" in name else np.float32
                    np.testing.assert_array_equal(found[ours], given[theirs][()].astype(dtype))
                    assert found[ours].dtype == dtype
            np.testing.assert_array_equal(found["action"], given["actions"][()].astype(np.float32))
            np.testing.assert_array_equal(found["states"], given["states"][()])  # float64: a simulator is set to them
            last = [False] * (len(found["action"]) - 1)
            assert found["terminated"].tolist() == [*last, i > 0]
            assert found["truncated"].tolist() == [*last, i == 0]
        record = buffer.attrs["provenance"]
    assert (record["control_hz"], record["robomimic_env"]) == (20, LIFT)
    assert record["filters"] == {"train": [0, 2], "valid": [1]}
    assert "env_id" not in record  # gymnasium knows no robosuite


def test_robomimic_filter_key_chooses_demonstrations(tmp_path: Path) -> None:
    source = lift(tmp_path / "lift.hdf5")
    with convert(str(source), tmp_path / "a.zarr", filter="train") as buffer:
        assert buffer.episode_ends.tolist() == [4, 9]
        assert buffer.attrs["provenance"]["filter"] == "train"
    with pytest.raises(ConfigError, match="no filter key 'test', it has: train, valid"):
        convert(str(source), tmp_path / "b.zarr", filter="test")


def test_robomimic_preview_says_what_is_dropped(tmp_path: Path) -> None:
    lines = preview(prepare(str(lift(tmp_path / "lift.hdf5")), tmp_path / "a.zarr"))
    assert lines[0].endswith("lift.hdf5; 3 episodes, 15 steps, 20 steps a second")
    assert any(line.split()[:6] == ["obs/object", "float64", "10", "->", "object", "float32"] for line in lines)
    assert "dropped  @model_file: of each demonstration, no column" in lines


@pytest.mark.parametrize("picture", [True, False])
def test_ours_to_robomimic_and_back_is_exact(picture: bool, tmp_path: Path) -> None:
    made = episodes(picture=picture)
    for i, episode in enumerate(made):
        steps = len(episode["action"])
        episode["height"] = np.full(steps, i + 1 / 3)  # float64, (T,)
        episode["grasped"] = np.arange(steps) % 2 == 0
        if picture:
            episode["wrist"] = np.rint(np.linspace(0, 255, steps * 8 * 9 * 3)).reshape(steps, 8, 9, 3).astype("f4")
    facts = {"env_id": "Toy-v0", "kwargs": {"control_hz": 20}, "filters": {"train": [0, 2]}}
    ours = store(tmp_path / "a.zarr", made, **facts)
    written = translate(str(ours), tmp_path / "b.hdf5")
    assert (written.format, written.num_episodes, written.num_steps) == ("robomimic", 3, sum(LENGTHS))
    with convert(str(tmp_path / "b.hdf5"), tmp_path / "c.zarr") as back:
        told = back.attrs["provenance"]
    same(ours, tmp_path / "c.zarr")
    assert {name: told[name] for name in facts} == facts


def test_what_robomimic_reads_is_where_it_looks(tmp_path: Path) -> None:
    made = episodes()
    ours = store(tmp_path / "a.zarr", made, env_id="Toy-v0", kwargs={"control_hz": 20})
    translate(str(ours), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        names = sorted(file["data"], key=lambda name: int(name[5:]))  # as its SequenceDataset sorts them
        assert [file["data"][name].attrs["num_samples"] for name in names] == list(LENGTHS)
        assert file["data"].attrs["total"] == sum(LENGTHS)
        meta = json.loads(file["data"].attrs["env_args"])
        assert meta == {"env_name": "Toy-v0", "type": 2, "env_kwargs": {"control_hz": 20}}
        demo = file["data/demo_1"]
        assert sorted(demo["obs"]) == sorted(demo["next_obs"]) == ["agent_pos", "front"]
        np.testing.assert_array_equal(demo["next_obs/front"][()], made[1]["next_front"])
        assert demo["obs/front"].dtype == np.uint8
        assert demo["dones"][()].tolist() == [0, 0, 1]
        assert file["data/demo_0/dones"][-1] == 0  # truncated
        np.testing.assert_array_equal(demo["rewards"][()], made[1]["reward"])


def test_robomimic_to_ours_to_robomimic_keeps_its_environment_and_filters(tmp_path: Path) -> None:
    lift(tmp_path / "lift.hdf5")
    convert(str(tmp_path / "lift.hdf5"), tmp_path / "a.zarr")
    translate(str(tmp_path / "a.zarr"), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "lift.hdf5") as one, h5py.File(tmp_path / "b.hdf5") as other:
        assert json.loads(other["data"].attrs["env_args"]) == LIFT
        assert other["mask/train"][()].tolist() == [b"demo_0", b"demo_2"]
        for i, demo in enumerate(("demo_8", "demo_9", "demo_10")):
            for path in ("obs/agentview_image", "next_obs/agentview_image", "states", "rewards"):
                np.testing.assert_array_equal(other[f"data/demo_{i}/{path}"][()], one[f"data/{demo}/{path}"][()])


def test_robomimic_pictures_with_fractions_are_refused(tmp_path: Path) -> None:
    steps = {"action": np.zeros((2, 1), np.float32), "img": np.full((2, 8, 8, 3), 0.5, np.float32)}
    ours = store(tmp_path / "a.zarr", [steps])
    with pytest.raises(DataError, match="episode 0: 'img' must hold pictures of whole numbers 0-255"):
        translate(str(ours), tmp_path / "b.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    lone = store(tmp_path / "c.zarr", [{"img": np.zeros((2, 8, 8, 3), np.uint8)}])
    with pytest.raises(DataError, match="need actions, but there is no 'action' in img"):
        translate(str(lone), tmp_path / "b.hdf5")


@pytest.mark.parametrize(("name", "to"), [("b.hdf5", "robomimic"), ("b", "minari")])
def test_a_disk_that_fills_up_is_noticed_before_hdf5_does(name: str, to: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip(to if to == "minari" else "h5py")
    ours, asked = store(tmp_path / "a.zarr", episodes()), []

    def filling(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=1 << 40 if len(asked) < 3 else 1 << 20)

    monkeypatch.setattr(shutil, "disk_usage", filling)
    with pytest.raises(StorageError, match=r"No space left on device\); free some space") as caught:
        translate(str(ours), tmp_path / name, to=to)
    assert str(caught.value).startswith(f"{tmp_path / name}: writing failed")
    assert len(asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def _without(file, path: str) -> None:
    del file[path]


def _put(file, path: str, values) -> None:
    if path in file:
        del file[path]
    file[path] = values


FAULTS = [
    (lambda f: _without(f, "data/demo_9/actions"), "expected 'actions' in demo_9, but it is missing"),
    (lambda f: _without(f, "data/demo_9/obs/object"), "demo_9: expected the columns of demo_8, but only one of them"),
    (lambda f: _put(f, "data/demo_9/obs/object", np.array([b"a"] * 6)), "demo_9: 'obs/object' must hold numbers"),
    (lambda f: _put(f, "data/demo_9/obs/object", np.zeros((6, 9))), "'object' must be float32 of shape"),
    (lambda f: _put(f, "data/demo_9/obs/object", np.zeros((5, 10))), "demo_9: expected columns of one length"),
    (lambda f: _put(f, "data/demo_9/dones", np.full(6, 7)), "demo_9: 'dones' must hold zeros and ones"),
    (lambda f: _put(f, "data/demo_9/rewards", np.zeros((6, 2))), "demo_9: 'rewards' must be one number a step"),
    (lambda f: f["data/demo_9"].attrs.__setitem__("num_samples", 7), "demo_9 says 7 samples, but has 6 actions"),
    (
        lambda f: (
            f["data/demo_9"].attrs.__setitem__("num_samples", 0),
            _put(f, "data/demo_9/actions", np.zeros((0, 7))),
        ),
        "demo_9 has no steps",
    ),
    (lambda f: f["data/demo_8/obs"].create_group("..").create_dataset("x", data=np.zeros((4, 1))), r"but got '..'"),
    (lambda f: f["data/demo_8/obs"].move("object", "a b"), "but got 'a b'; rename it"),
    (
        lambda f: f.move("data/demo_9", "data/lift"),
        "expected demonstrations data/demo_0, data/demo_1 ..., but found lift",
    ),
    (lambda f: _put(f, "data/demo_8/obs/action", np.zeros((4, 2))), "would both be called 'action'"),
    (lambda f: f["data"].attrs.__setitem__("env_args", "{"), "its env_args are damaged"),
    (lambda f: _put(f, "mask/train", np.array([b"demo_99"])), "filter key 'train' names demo_99, which is not there"),
    (lambda f: f["data/demo_8"].__setitem__("loop", f["data/demo_8"]), "groups of four levels at most"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_robomimic_faults_are_one_line_and_leave_nothing(spoil, message: str, tmp_path: Path) -> None:
    with h5py.File(lift(tmp_path / "lift.hdf5"), "a") as file:
        spoil(file)
    with pytest.raises(DataError) as raised:
        convert(str(tmp_path / "lift.hdf5"), tmp_path / "a.zarr")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["lift.hdf5"]


def test_robomimic_file_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    content = lift(tmp_path / "lift.hdf5").read_bytes()
    (tmp_path / "lift.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or no HDF5"):
        convert(str(tmp_path / "lift.hdf5"), tmp_path / "a.zarr", name="robomimic")


def test_robomimic_rate_that_contradicts_is_refused(tmp_path: Path) -> None:
    source = lift(tmp_path / "lift.hdf5")
    with pytest.raises(ConfigError, match="says 20 steps a second, but --control-hz says 10"):
        convert(str(source), tmp_path / "a.zarr", control_hz=10.0)


def test_robomimic_links_into_other_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["x"] = np.zeros((4, 1))
    with h5py.File(lift(tmp_path / "lift.hdf5"), "a") as file:
        file["data/demo_8/obs/x"] = h5py.ExternalLink("secret.hdf5", "x")
    with pytest.raises(DataError, match="'x' is a link to something else"):
        convert(str(tmp_path / "lift.hdf5"), tmp_path / "a.zarr")
    layout = h5py.VirtualLayout((4, 1), float)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "x", (4, 1))
    with h5py.File(tmp_path / "lift.hdf5", "a") as file:
        del file["data/demo_8/obs/x"]
        file["data/demo_8/obs"].create_virtual_dataset("x", layout)
    with pytest.raises(DataError, match="'x' lies in another file"):
        convert(str(tmp_path / "lift.hdf5"), tmp_path / "a.zarr")


def test_robomimic_record_of_a_later_version_is_refused(tmp_path: Path) -> None:
    translate(str(store(tmp_path / "a.zarr", episodes())), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "a") as file:
        told = json.loads(file["diffusion_policy"][()])
        del file["diffusion_policy"]
        file["diffusion_policy"] = json.dumps({**told, "version": 99})
    with pytest.raises(DataError, match="written by a later version"):
        ReplayBuffer.open(translate(str(tmp_path / "b.hdf5"), tmp_path / "c.zarr").path)


def test_documentation_in_python_runs_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    found = re.search(r"```python\n(.*?)```", (Path(__file__).parents[3] / "docs/data.md").read_text(), re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    lift(tmp_path / "image.hdf5")
    exec(compile(found[1], "docs/data.md", "exec"), {})
    assert ReplayBuffer.open("lift.zarr").shape("action") == (13,)
    same(Path("lift.zarr"), Path(translate("lift.hdf5", "back.zarr").path))
    assert minari.MinariDataset(tmp_path / "lift-human-v0/data").total_episodes == 2


def test_what_is_known_of_each_episode_is_known_of_those_a_filter_chooses(tmp_path: Path) -> None:
    parts = [{"name": "expert", "episodes": 2, "steps": 8}, {"name": "noise", "episodes": 1, "steps": 7}]
    facts = {"seeds": [10, 11, 12], "parts": parts, "filters": {"train": [0, 2]}}
    translate(str(store(tmp_path / "a.zarr", episodes(), **facts)), tmp_path / "b.hdf5")
    with convert(str(tmp_path / "b.hdf5"), tmp_path / "c.zarr", filter="train") as back:
        told = back.attrs["provenance"]
    assert told["seeds"] == [10, 12]
    assert "parts" not in told
    assert told["filter"] == "train"
