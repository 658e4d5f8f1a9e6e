"""Our episodes as Minari data sets, opened by the library itself."""

import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.formats.convert import convert, guess_format, prepare, translate
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.errors import ConfigError, DataError
from tests.data.formats.toys import LENGTHS, episodes, same, store

pytest.importorskip("h5py")
minari = pytest.importorskip("minari")


@pytest.mark.parametrize("picture", [True, False])
def test_ours_to_minari_and_back_is_exact(picture: bool, tmp_path: Path) -> None:
    made = episodes(picture=picture)
    for i, episode in enumerate(made):
        steps = len(episode["action"])
        episode["height"] = np.full(steps, i + 1 / 3)  # float64, (T,), without next_height
        episode["grasped"] = np.arange(steps) % 2 == 0
        if picture:
            episode["wrist"] = np.rint(np.linspace(0, 255, steps * 8 * 9 * 3)).reshape(steps, 8, 9, 3).astype("f4")
        episode["count"] = np.arange(steps, dtype=np.int64)[:, None] - 2
    facts = {"env_id": "Nowhere-v0", "kwargs": {"control_hz": 20}}
    ours = store(tmp_path / "a.zarr", made, **facts)
    written = translate(str(ours), tmp_path / "b", to="minari")
    assert (written.format, written.num_episodes, written.num_steps) == ("minari", 3, sum(LENGTHS))
    assert guess_format(str(tmp_path / "b")) == "minari"
    with convert(str(tmp_path / "b"), tmp_path / "c.zarr") as back:
        told = back.attrs["provenance"]
    same(ours, tmp_path / "c.zarr")
    assert {name: told[name] for name in facts} == facts
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "b", "c.zarr"}


def test_ends_that_nobody_marked_stay_unmarked(tmp_path: Path) -> None:
    made = [{"observation": np.zeros((3, 2)), "action": np.ones((3, 1)), "truncated": np.zeros(3, bool)}]
    ours = store(tmp_path / "a.zarr", made)
    translate(str(ours), tmp_path / "b", to="minari")
    convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    same(ours, tmp_path / "c.zarr")


def test_minari_loads_what_was_written_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = episodes()
    facts = {"env_id": "gymnasium:Pendulum-v1", "kwargs": {"g": 9.81}, "action_bounds": [[-1, -0.1], [1, 2]]}
    ours = store(tmp_path / "a.zarr", made, **facts)
    translate(str(ours), tmp_path / "toy-v3", to="minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = minari.load_dataset("toy-v3")
    assert (data.total_episodes, int(data.total_steps)) == (3, sum(LENGTHS))
    assert (data.spec.env_spec.id, data.spec.env_spec.kwargs["g"]) == ("Pendulum-v1", 9.81)
    assert data.spec.action_space == gym.spaces.Box(np.float32([-1, -0.1]), np.float32([1, 2]))
    assert data.spec.observation_space["front"] == gym.spaces.Box(0, 255, (12, 10, 3), np.uint8)
    for found, given in zip(data.iterate_episodes(), made, strict=True):
        np.testing.assert_array_equal(found.observations["agent_pos"][:-1], given["agent_pos"])
        np.testing.assert_array_equal(found.observations["agent_pos"][-1], given["next_agent_pos"][-1])
        np.testing.assert_array_equal(found.observations["front"][1:], given["next_front"])  # no JPEG in between
        assert np.array(found.observations["front"]).dtype == np.uint8
        np.testing.assert_array_equal(found.actions, given["action"])
        np.testing.assert_array_equal(found.rewards, given["reward"])
        np.testing.assert_array_equal(found.terminations, given["terminated"])
        np.testing.assert_array_equal(found.truncations, given["truncated"])
        assert data.spec.observation_space.contains({key: rows[0] for key, rows in found.observations.items()})
    with convert("toy-v3", tmp_path / "b.zarr") as back:  # its own description says less than ours did
        told = back.attrs["provenance"]
    assert {name: told[name] for name in facts} == facts


def test_minari_to_ours_to_minari_keeps_every_observation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [{key: values for key, values in each.items() if "front" not in key} for each in episodes()]
    made = [
        {key.replace("agent_pos", "observation"): values for key, values in each.items()} for each in made
    ]  # a Box, not a Dict
    translate(str(store(tmp_path / "a.zarr", made)), tmp_path / "one-v0", to="minari")
    convert(str(tmp_path / "one-v0"), tmp_path / "b.zarr")
    translate(str(tmp_path / "b.zarr"), tmp_path / "two-v0", to="minari", minari_id="group/two-v0")
    one, two = (minari.MinariDataset(tmp_path / name / "data") for name in ("one-v0", "two-v0"))
    assert two.spec.dataset_id == "group/two-v0"
    assert one.spec.observation_space == two.spec.observation_space == gym.spaces.Box(-np.inf, np.inf, (4,))
    for left, right in zip(one.iterate_episodes(), two.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(left.observations, right.observations)
        np.testing.assert_array_equal(left.actions, right.actions)


def test_minari_writing_leaves_the_environment_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = str(store(tmp_path / "a.zarr", episodes(picture=False)))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    translate(ours, tmp_path / "b", to="minari")
    assert "MINARI_DATASETS_PATH" not in os.environ
    monkeypatch.setenv("MINARI_DATASETS_PATH", "mine")
    translate(ours, tmp_path / "c", to="minari")
    assert os.environ["MINARI_DATASETS_PATH"] == "mine"


def test_minari_cannot_hold_what_does_not_follow(tmp_path: Path) -> None:
    made = episodes(picture=False)
    made[1]["next_agent_pos"] = made[1]["next_agent_pos"].copy()
    made[1]["next_agent_pos"][0] += 1
    ours = str(store(tmp_path / "a.zarr", made))
    with pytest.raises(DataError, match="episode 1: 'next_agent_pos' tells of something else than the following step"):
        translate(ours, tmp_path / "b", to="minari")
    made = [{"action": np.zeros((2, 1)), "img": np.full((2, 8, 8, 3), 0.5, np.float32)}]
    with pytest.raises(DataError, match="episode 0: 'img' must hold pictures of whole numbers 0-255"):
        translate(str(store(tmp_path / "d.zarr", made)), tmp_path / "b", to="minari")
    lone = str(store(tmp_path / "c.zarr", [{"action": np.zeros((2, 1))}]))
    with pytest.raises(DataError, match="needs 'action' and what is observed, but there is only action"):
        translate(lone, tmp_path / "b", to="minari")
    with pytest.raises(ConfigError, match=r"--minari-id must be like group/name-v0, but got '\.\./x-v0'"):
        translate(ours, tmp_path / "b", to="minari", minari_id="../x-v0")
    assert {path.name for path in tmp_path.iterdir()} == {"a.zarr", "c.zarr", "d.zarr"}


def test_minari_preview_says_where_observations_go_and_come_from(tmp_path: Path) -> None:
    ours = str(store(tmp_path / "a.zarr", [{key: each[key] for key in ("front", "action")} for each in episodes()]))
    there = preview(prepare(ours, tmp_path / "b", to="minari"))
    assert any(line.endswith("-> observations/front  # the last one twice") for line in there)
    translate(ours, tmp_path / "b", to="minari")
    back = preview(prepare(str(tmp_path / "b"), tmp_path / "c.zarr"))
    assert any(line.split()[:5] == ["observations/front", "uint8", "12x10x3", "->", "front"] for line in back)
    assert "dropped  rewards: made for Minari" in back


def test_next_actions_are_columns_like_others(tmp_path: Path) -> None:
    made = episodes()
    for episode in made:
        episode["next_action"], episode["next_reward"] = episode["action"] + 1, episode["reward"] + 1
    ours = store(tmp_path / "a.zarr", made)
    translate(str(ours), tmp_path / "b", to="minari")
    convert(str(tmp_path / "b"), tmp_path / "c.zarr")
    same(ours, tmp_path / "c.zarr")
