"""OGBench's manipulation behind our contract: starts, states, experts, pictures, messages."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffusion_policy_envs import gl
from tests.cli.running import dp
from tests.envs.adapters.continuing import expert_episode, goes_on_bit_by_bit
from tests.envs.adapters.missing import hide

IDS = ("OGBenchCubeSingle-v0", "OGBenchCubeDouble-v0", "OGBenchPuzzle3x3-v0")


@pytest.fixture(scope="module")
def envs() -> dict[str, Any]:
    """One of each with all observations but pictures: models take seconds to build."""
    pytest.importorskip("ogbench", reason="needs ogbench (extra ogbench)")
    own = {IDS[0]: ["cubes", "goals"], IDS[1]: ["cubes", "goals"], IDS[2]: ["buttons", "goals", "depths"]}
    common = ["effector", "gripper", "joints", "state"]
    return {name: gym.make(f"diffusion_policy_envs:{name}", obs_keys=[*common, *own[name]]) for name in IDS}


@pytest.mark.parametrize("name", IDS)
def test_adapter_keeps_gymnasiums_contract(envs: dict[str, Any], name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*infinity.*")  # OGBench bounds no observation
        check_env(envs[name].unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", IDS)
def test_seed_alone_says_how_an_episode_begins(envs: dict[str, Any], name: str) -> None:
    first = envs[name].reset(seed=3)[0]
    np.random.random(5)
    envs[name].reset(seed=4)
    again = envs[name].reset(seed=3)[0]
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    starts = np.stack([envs[name].reset(seed=seed)[0]["state"] for seed in range(8)])
    assert len(np.unique(starts, axis=0)) == 8


@pytest.mark.parametrize("name", IDS)
def test_expert_solves_tasks_and_its_recorded_states_are_gone_on_from(envs: dict[str, Any], name: str) -> None:
    for seed in range(2):
        states, actions, success = expert_episode(envs[name], seed)
        assert success
        assert np.abs(actions).max() <= 1.0
    goes_on_bit_by_bit(envs[name], states, actions, len(actions) // 2)
    assert expert_episode(envs[name], seed)[1][-1].tolist() == actions[-1].tolist()


@pytest.mark.parametrize(("task", "most"), [(4, 250), (5, 200)])  # swaps the cubes; stacks them
def test_expert_brings_cubes_to_places_that_are_taken_or_on_each_other(
    envs: dict[str, Any], task: int, most: int
) -> None:
    env = envs["OGBenchCubeDouble-v0"]
    env.unwrapped.task_id = task
    try:
        assert expert_episode(env, 0, most)[2]
    finally:
        env.unwrapped.task_id = None


def test_observations_are_where_things_are(envs: dict[str, Any]) -> None:
    env = envs["OGBenchCubeSingle-v0"]
    obs, info = env.reset(seed=1)
    inner = env.unwrapped.inner
    np.testing.assert_allclose(obs["effector"][:3], inner.data.site("ur5e/robotiq/pinch").xpos, atol=1e-6)
    np.testing.assert_allclose(obs["cubes"][0, :3], inner.data.joint("object_joint_0").qpos[:3], atol=1e-6)
    assert not info["is_success"]
    state = obs["state"].copy()
    at_goal = inner.model.joint("object_joint_0").qposadr[0]
    state[at_goal : at_goal + 3] = obs["goals"][0]
    moved, info = env.reset(options={"state": state})
    np.testing.assert_allclose(moved["cubes"][0, :3], obs["goals"][0], atol=1e-6)
    assert info["is_success"]


def test_actions_move_the_effector_by_what_they_say(envs: dict[str, Any]) -> None:
    env = envs["OGBenchCubeSingle-v0"]
    before = env.reset(seed=1)[0]["effector"]
    for _ in range(3):
        after = env.step(np.array([0.0, 0.5, 0.0, 0.0, 0.0]))[0]["effector"]
    assert 0.02 < after[1] - before[1] < 3 * 0.025  # m: targets 25 mm ahead of where it is
    np.testing.assert_allclose(after[[0, 2]], before[[0, 2]], atol=0.01)


def test_make_expert_leaves_numpys_global_numbers_alone(envs: dict[str, Any]) -> None:
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    envs["OGBenchCubeSingle-v0"].unwrapped.make_expert(3)
    assert np.random.random() == expected


def test_wrong_task_id_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"task_id must be one of \[1, 2, 3, 4, 5\], or None .* got 6"):
        gym.make("diffusion_policy_envs:OGBenchCubeSingle-v0", task_id=6)


@pytest.mark.parametrize("name", ["OGBenchCubeSingle-v0", "OGBenchPuzzle3x3-v0"])
def test_picture_shows_a_recorded_step_and_leaves_the_episode(envs: dict[str, Any], name: str) -> None:
    if not gl.can_draw():
        pytest.skip("MuJoCo cannot draw here")
    env, one = envs[name], np.array([0.3, 0.2, -0.5, 0.0, 1.0])
    then = env.reset(seed=2)[0]
    for _ in range(4):
        now = env.step(one)[0]
    env.unwrapped.render_mode = "rgb_array"
    shown = env.unwrapped.render()
    np.testing.assert_array_equal(env.unwrapped.picture({"state": now["state"]}, 512), shown)
    assert (env.unwrapped.picture({"state": then["state"]}, 512) != shown).mean() > 0.01
    np.testing.assert_array_equal(env.unwrapped.observe(then)["effector"], then["effector"])
    expected = env.step(one)[0]["state"]
    env.reset(options={"state": now["state"]})
    np.testing.assert_array_equal(env.step(one)[0]["state"], expected)


def test_missing_package_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide("ogbench", monkeypatch)
    done = dp("collect", "task=ogbench_cube", "out=a.zarr", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "refused its arguments" not in done.err
    assert "ogbench is not installed: pip install 'diffusion-policy[ogbench]'" in done.err
    assert not (tmp_path / "a.zarr").exists()
