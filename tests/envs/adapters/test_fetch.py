"""Fetch-v0: what it needs to run on today's MuJoCo, and its script."""

from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy_envs import gl
from diffusion_policy_envs.adapters.joint_types import read_joint_types_as_numbers


@pytest.fixture
def robotics() -> None:
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics (extra robotics)")


def make(**kwargs: Any) -> Any:
    return gym.make("diffusion_policy_envs:Fetch-v0", **kwargs)


def episode(env: Any, seed: int, disturb: Any = lambda step, action: action) -> list[dict[str, Any]]:
    """Returns the infos of the script's episode; `disturb` changes its actions."""
    obs, info = env.reset(seed=seed)
    script, infos, over = env.unwrapped.make_expert(seed), [], False
    while not over:
        obs, _, terminated, truncated, info = env.step(disturb(len(infos), script(obs, info)))
        infos.append(info)
        over = terminated or truncated
    return infos


def test_types_of_joints_become_numbers_and_all_else_stays() -> None:
    module = ModuleType("mujoco_utils")
    module.mujoco = gl.mujoco  # type: ignore[attr-defined]
    model = gl.mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    )
    for _ in range(2):
        read_joint_types_as_numbers(module)
        assert model.jnt_type[0] in (module.mujoco.mjtJoint.mjJNT_HINGE, module.mujoco.mjtJoint.mjJNT_SLIDE)
        assert model.jnt_type[0] not in (module.mujoco.mjtJoint.mjJNT_FREE,)
    assert module.mujoco.mjtObj is gl.mujoco.mjtObj
    assert module.mujoco.mj_forward is gl.mujoco.mj_forward
    assert module.mujoco._mujoco is gl.mujoco  # wrapped once


@pytest.mark.usefixtures("robotics")
def test_fields_are_what_the_package_observes() -> None:
    env = make()
    obs, info = env.reset(seed=0)
    core = env.unwrapped.core._get_obs()
    np.testing.assert_allclose(obs["gripper"][:3], core["observation"][:3], atol=1e-6)
    np.testing.assert_allclose(obs["object"], core["achieved_goal"], atol=1e-6)
    np.testing.assert_allclose(obs["goal"], core["desired_goal"], atol=1e-6)
    assert info == {"is_success": False, "distance": pytest.approx(np.linalg.norm(obs["object"] - obs["goal"]))}
    for _ in range(5):
        obs = env.step(np.float32([0, 0, 0, 1]))[0]
    assert obs["gripper"][3] == pytest.approx(0.1, abs=5e-3)  # m, open


@pytest.mark.usefixtures("robotics")
def test_script_brings_the_cube_to_the_goal_and_holds_it_there() -> None:
    env = make()
    for seed in range(12):
        infos = episode(env, seed)
        assert len(infos) == 50
        assert all(info["is_success"] for info in infos[-10:])


@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("step", [9, 14])
def test_script_takes_again_what_it_missed_or_dropped(step: int) -> None:
    """The arm halts and the fingers open, while they should close or on the way to the goal."""

    def opened(now: int, action: np.ndarray) -> np.ndarray:
        return np.float32([0, 0, 0, 1]) if step <= now < step + 5 else action

    env, taken = make(obs_keys=["object"]), []
    for seed in range(6):
        success = episode(env, seed, opened)[-1]["is_success"]
        if env.unwrapped._fields(env.unwrapped.core)["object"][2] > 0.4:  # m: what flew off the table is out of reach
            taken.append(success)
    assert len(taken) >= 5
    assert all(taken)


@pytest.mark.usefixtures("robotics")
@pytest.mark.slow
def test_script_solves_95_of_100() -> None:
    env = make()
    assert np.mean([episode(env, seed)[-1]["is_success"] for seed in range(100)]) >= 0.95


@pytest.mark.usefixtures("robotics")
def test_a_recorded_state_goes_on_as_it_did_to_a_millimetre() -> None:
    """In the middle of a grasp, and with its goal."""
    env, other = (make(obs_keys=["gripper", "object", "goal", "state"]).unwrapped for _ in range(2))
    obs, info = env.reset(seed=3)
    script = env.make_expert(3)
    for _ in range(14):
        obs, _, _, _, info = env.step(script(obs, info))
    there, _ = other.reset(options={"state": obs["state"]})
    np.testing.assert_array_equal(there["goal"], obs["goal"])
    np.testing.assert_allclose(there["object"], obs["object"], atol=2e-3)
    for _ in range(6):
        action = script(obs, info)
        obs, _, _, _, info = env.step(action)
        there = other.step(action)[0]
    np.testing.assert_allclose(there["object"], obs["object"], atol=5e-3)
    np.testing.assert_allclose(there["gripper"], obs["gripper"], atol=5e-3)


@pytest.mark.usefixtures("robotics")
def test_reach_has_a_script_and_push_none() -> None:
    env = make(task="reach")
    assert set(env.observation_space.spaces) == {"gripper", "goal"}
    assert all(episode(env, seed)[-1]["is_success"] for seed in range(3))
    push = make(task="push").unwrapped
    assert set(push.observation_space.spaces) == {"gripper", "object", "goal"}
    assert not hasattr(push, "make_expert")  # by which dp-collect says that there is none


@pytest.mark.usefixtures("robotics")
@pytest.mark.parametrize("name", ["Fetch-v0", "AdroitDoor-v0"])
def test_episodes_without_a_seed_begin_differently_and_with_one_alike(name: str) -> None:
    def begin(seed: int | None) -> np.ndarray:
        env = gym.make(f"diffusion_policy_envs:{name}")
        obs, _ = env.reset(seed=seed)
        env.close()
        return np.concatenate([np.ravel(each) for each in obs.values()])

    assert not np.array_equal(begin(None), begin(None))
    np.testing.assert_array_equal(begin(7), begin(7))


@pytest.mark.usefixtures("robotics")
def test_bad_arguments_are_explained() -> None:
    env = make().unwrapped
    with pytest.raises(ValueError, match=r"task must be one of .*, but got 'slide'"):
        make(task="slide")
    with pytest.raises(ValueError, match="a recorded step must hold state, but it has gripper"):
        env.picture({"gripper": np.zeros(4)}, 64)
    with pytest.raises(ValueError, match=r"action must have shape \(4,\)"):
        env.step([0.0, 1.0])
