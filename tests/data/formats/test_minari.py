"""Minari data sets, made and read by the library itself."""

import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.formats.convert import convert
from diffusion_policy.data.survey import survey
from diffusion_policy.errors import ConfigError, DataError, MissingFileError

pytest.importorskip("h5py")
minari = pytest.importorskip("minari")
LENGTHS, TERMINATED = (5, 7, 4), (1,)
BOX = gym.spaces.Box(-99, 99, (2,), np.float64)


def episodes(observed) -> list:
    """Returns the library's buffers; `observed(rng, steps)` makes observations."""
    from minari.data_collector import EpisodeBuffer

    rng, made = np.random.default_rng(0), []
    for i, steps in enumerate(LENGTHS):
        last = [step == steps - 1 for step in range(steps)]
        made.append(
            EpisodeBuffer(
                id=i,
                seed=i,
                observations=observed(rng, steps + 1),
                actions=rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
                rewards=rng.normal(size=steps).tolist(),
                terminations=[each and i in TERMINATED for each in last],
                truncations=[each and i not in TERMINATED for each in last],
            )
        )
    return made


def made(buffers: list, space: gym.Space, action_space: gym.Space | None = None, **settings):
    about = {"author": "a", "author_email": "a@b.c", "code_permalink": "c", "algorithm_name": "d", "description": "e"}
    with warnings.catch_warnings():  # about what else one could tell of it
        warnings.simplefilter("ignore")
        return minari.create_dataset_from_buffers(
            "toy/walk/random-v0",
            buffer=buffers,
            observation_space=space,
            action_space=action_space or gym.spaces.Box(-1, 1, (1,)),
            **about,
            **settings,
        )


def walk(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(size=(rows, 2)).cumsum(axis=0)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.mark.parametrize("named", ["id", "folder", "data folder"])
def test_minari_episodes_hold_every_observation(named: str, root: Path, tmp_path: Path) -> None:
    given = episodes(walk)
    made(given, BOX)
    source = {"id": "toy/walk/random-v0", "folder": f"{root}/toy/walk/random-v0"}
    source["data folder"] = source["folder"] + "/data"
    buffer = convert(source[named], tmp_path / "a.zarr")
    assert buffer.keys() == ["action", "next_observation", "observation", "reward", "terminated", "truncated"]
    assert buffer.num_episodes == len(LENGTHS)
    for i, episode in enumerate(given):
        found = buffer.get_episode(i)
        np.testing.assert_array_equal(found["observation"], episode.observations[:-1].astype(np.float32))
        np.testing.assert_array_equal(found["next_observation"], episode.observations[1:].astype(np.float32))
        np.testing.assert_array_equal(found["action"], episode.actions)
        np.testing.assert_array_equal(found["reward"], np.float32(episode.rewards))
        assert found["terminated"].tolist() == episode.terminations
        assert found["truncated"].tolist() == episode.truncations
    assert survey(buffer).problems == ()


def test_minari_tells_its_environment_and_the_bounds_of_actions(tmp_path: Path) -> None:
    made(episodes(walk), BOX, env="Pendulum-v1", eval_env="Pendulum-v1")
    record = convert("toy/walk/random-v0", tmp_path / "a.zarr").attrs["provenance"]
    assert (record["env_id"], record["kwargs"], record["action_bounds"]) == ("Pendulum-v1", {}, [[-1.0], [1.0]])
    assert (record["converted_from"]["format"], record["minari_id"]) == ("minari", "toy/walk/random-v0")


def test_minari_fields_of_observations_become_keys(tmp_path: Path) -> None:
    def observed(rng, rows):
        return {"pos": walk(rng, rows), "goal": {"xy": walk(rng, rows)}, "mode": rng.integers(0, 3, rows)}

    nested = gym.spaces.Dict(xy=BOX)
    given = episodes(observed)
    made(given, gym.spaces.Dict(pos=BOX, goal=nested, mode=gym.spaces.Discrete(3)))
    buffer = convert("toy/walk/random-v0", tmp_path / "a.zarr")
    assert set(buffer.keys()) == {
        "pos", "goal_xy", "mode", "next_pos", "next_goal_xy", "next_mode", "action", "reward", "terminated", "truncated"
    }  # fmt: skip
    np.testing.assert_array_equal(
        buffer.get_episode(1)["next_goal_xy"], given[1].observations["goal"]["xy"][1:].astype(np.float32)
    )
    np.testing.assert_array_equal(buffer.get_episode(2)["mode"], given[2].observations["mode"][:-1])


def test_minari_recording_that_stopped_is_truncated(tmp_path: Path) -> None:
    given = episodes(walk)
    given[0].truncations[-1] = False
    made(given, BOX)
    assert convert("toy/walk/random-v0", tmp_path / "a.zarr").get_episode(0)["truncated"].tolist() == [False] * 4 + [
        True
    ]


def test_minari_data_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    made(episodes(lambda rng, rows: (walk(rng, rows), walk(rng, rows))), gym.spaces.Tuple([BOX, BOX]))
    with pytest.raises(DataError, match="expected 'observation' to be an array, but got tuple"):
        convert("toy/walk/random-v0", tmp_path / "a.zarr")


def test_minari_observation_called_like_a_reward_is_refused(tmp_path: Path) -> None:
    made(episodes(lambda rng, rows: {"reward": walk(rng, rows)}), gym.spaces.Dict(reward=BOX))
    with pytest.raises(DataError, match="named otherwise than action, reward"):
        convert("toy/walk/random-v0", tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["..", "a b", "x\ny"])
def test_minari_observation_whose_name_is_none_is_refused(name: str, tmp_path: Path) -> None:
    made(episodes(lambda rng, rows: {name: walk(rng, rows)}), gym.spaces.Dict({name: BOX}))
    with pytest.raises(DataError, match="a name must consist of letters") as raised:
        convert("toy/walk/random-v0", tmp_path / "a.zarr")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a.zarr").exists()


def test_minari_episode_without_steps_is_refused(root: Path, tmp_path: Path) -> None:
    import h5py

    made(episodes(walk), BOX)
    with h5py.File(root / "toy/walk/random-v0/data/main_data.hdf5", "a") as file:
        for name in ("actions", "rewards", "terminations", "truncations"):
            file[f"episode_1/{name}"].resize((0, *file[f"episode_1/{name}"].shape[1:]))
        file["episode_1/observations"].resize((1, 2))
        file["episode_1"].attrs["total_steps"] = 0
    with pytest.raises(DataError, match="episode 1 has no steps"):
        convert("toy/walk/random-v0", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_minari_damage_is_one_line_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    made(episodes(walk), BOX)
    data = root / "toy/walk/random-v0/data"
    whole = (data / "main_data.hdf5").read_bytes()
    (data / "main_data.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as raised:
        convert("toy/walk/random-v0", tmp_path / "a.zarr")
    assert "\n" not in str(raised.value)
    (data / "metadata.json").write_text("{")
    with pytest.raises(DataError, match="minari cannot read it"):
        convert(str(data), tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_minari_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError, match="its id after `minari download toy/none-v3`"):
        convert("toy/none-v3", tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match="leave --max-episode-steps out"):
        convert("toy/none-v3", tmp_path / "a.zarr", max_episode_steps=3)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"pip install 'diffusion-policy\[offline\]'"):
        convert("toy/none-v3", tmp_path / "a.zarr")


def test_minari_numbers_of_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made(episodes(walk), BOX)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.hdf5", "w") as other:
        other["x"] = np.zeros((LENGTHS[1], 1), np.float32)
    with h5py.File(tmp_path / "toy/walk/random-v0/data/main_data.hdf5", "a") as file:
        del file["episode_1/actions"]
        file["episode_1/actions"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "x")
    with pytest.raises(DataError, match="'actions' is a link to something else"):
        convert("toy/walk/random-v0", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
