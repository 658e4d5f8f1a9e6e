"""Meta-World's tasks behind our contract: starts, states, scripts, pictures, messages."""

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffusion_policy_envs import gl
from diffusion_policy_envs.adapters.metaworld import INSTALL, check_installed
from tests.cli.running import dp
from tests.envs.adapters.continuing import expert_episode, goes_on_bit_by_bit
from tests.envs.adapters.missing import hide

ID = "diffusion_policy_envs:MetaWorld-v0"
KEYS = ["hand", "objects", "goal", "state"]


@pytest.fixture(scope="module")
def metaworld() -> Any:
    """The package, where it can run."""
    try:
        check_installed(gl.mujoco.__version__)
    except gym.error.DependencyNotInstalled as error:
        pytest.skip(str(error))
    return pytest.importorskip("metaworld")


@pytest.fixture(scope="module")
def reach(metaworld: Any) -> Any:
    return gym.make(ID, task="reach", obs_keys=KEYS)


def test_adapter_keeps_gymnasiums_contract(reach: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*infinity.*")  # Meta-World bounds few observations
        check_env(reach.unwrapped, skip_render_check=True)


def test_seed_alone_says_how_an_episode_begins(reach: Any) -> None:
    first = reach.reset(seed=3)[0]
    np.random.random(5)
    expert_episode(reach, 4, most=20)
    again = reach.reset(seed=3)[0]
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    goals = np.stack([reach.reset(seed=seed)[0]["goal"] for seed in range(8)])
    assert len(np.unique(goals, axis=0)) == 8


@pytest.mark.parametrize("task", ["reach", "drawer-open", "pick-place"])
def test_expert_solves_a_task_and_its_recorded_states_are_gone_on_from(metaworld: Any, task: str) -> None:
    env = gym.make(ID, task=task, obs_keys=KEYS)
    states, actions, success = expert_episode(env, 0)
    assert success
    assert len(actions) < 200
    goes_on_bit_by_bit(env, states, actions, len(actions) // 2)


def test_goal_is_seen_and_reaching_it_is_success(reach: Any) -> None:
    obs, info = reach.reset(seed=0)
    assert not info["is_success"]
    terminated = False
    while not terminated:
        way = obs["goal"] - obs["hand"][:3]
        obs, _, terminated, _, info = reach.step([*np.clip(10 * way, -1, 1), 0.0])
    assert info["is_success"]
    assert np.linalg.norm(obs["goal"] - obs["hand"][:3]) < 0.1


def test_every_task_begins_and_has_a_script(metaworld: Any) -> None:
    names = [name.removesuffix("-v3") for name in metaworld.ALL_V3_ENVIRONMENTS]
    assert len(names) == 50
    for name in names:
        env = gym.make(ID, task=name)
        obs, info = env.reset(seed=0)
        action = env.unwrapped.make_expert(0)(obs, info)
        assert env.action_space.contains(action)
        assert env.observation_space.contains(env.step(action)[0])
        env.close()


def test_state_with_a_start_that_the_task_refuses_is_an_error_instead_of_a_loop(metaworld: Any) -> None:
    env = gym.make(ID, task="push", obs_keys=["state"])
    state = env.reset(seed=0)[0]["state"]
    state[-3:-1] = state[-6:-4]  # the goal below the puck
    with pytest.raises(ValueError, match="accepts no start like"):
        env.reset(options={"state": state})


def test_wrong_task_lists_all(metaworld: Any) -> None:
    with pytest.raises(ValueError, match=r"task must be one of assembly, .*window-close; but got 'reach-v3'"):
        gym.make(ID, task="reach-v3")


def test_picture_shows_a_recorded_step_and_leaves_the_episode(reach: Any) -> None:
    if not gl.can_draw():
        pytest.skip("MuJoCo cannot draw here")
    then, one = reach.reset(seed=2)[0], np.array([1.0, 1.0, -1.0, 0.0])
    for _ in range(10):
        now = reach.step(one)[0]
    reach.unwrapped.render_mode = "rgb_array"
    shown = reach.unwrapped.render()
    np.testing.assert_array_equal(reach.unwrapped.picture({"state": now["state"]}, 512), shown)
    assert (reach.unwrapped.picture({"state": then["state"]}, 512) != shown).mean() > 0.01
    np.testing.assert_array_equal(reach.step(one)[0]["goal"], now["goal"])


@pytest.mark.parametrize("version", ["3.17.0", "3.20.1", "4.0.0"])
def test_new_mujoco_is_refused_with_the_lines_that_help(version: str) -> None:
    with pytest.raises(gym.error.DependencyNotInstalled, match=rf"older than 3.17 .* this is {version}") as caught:
        check_installed(version)
    assert "pip install --no-deps metaworld==3.1.1" in str(caught.value)
    assert "mujoco==3.8.1" in str(caught.value)


def test_missing_package_is_told_with_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_policy_envs.adapters.metaworld.find_spec", lambda name: None)
    with pytest.raises(gym.error.DependencyNotInstalled, match="metaworld is not installed") as caught:
        check_installed("3.8.1")
    assert INSTALL in str(caught.value)


def test_commands_refuse_a_new_mujoco_in_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide("metaworld", monkeypatch)  # as with MuJoCo 4, it must not be touched
    monkeypatch.setattr(gl.mujoco, "__version__", "4.0.0")
    done = dp("collect", "task=metaworld", "out=a.zarr", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "refused its arguments" not in done.err
    assert INSTALL in done.err
    assert not (tmp_path / "a.zarr").exists()
