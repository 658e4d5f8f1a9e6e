"""PickPlace-v0: what counts as success, what the reward says, and its expert."""

from typing import Any

import numpy as np
import pytest

from diffusion_policy_envs.gripper.scene import CUBE_HALF, FINGER_TRAVEL
from tests.envs.gripper_episodes import expert_episode, make

AWAY = np.float32([-0.15, -0.15, 0.2, 1.0])


def placed(**where: Any) -> tuple[float, bool, dict[str, Any]]:
    """Returns reward, terminated and info after a step of rest, with a cube `offset` from the target."""
    env = make("PickPlace-v0", obs_keys=["state"])
    state = env.reset(seed=0)[0]["state"]
    state[:5] = where.get("gripper", [*AWAY[:3], FINGER_TRAVEL, FINGER_TRAVEL])
    state[-3:] = 0.05, 0.05, where.get("held_s", 0.45)  # so that one step completes half a second
    state[5:12] = [*(np.array([0.05, 0.05]) + where["offset"]), CUBE_HALF + where.get("height", 0.0), 1, 0, 0, 0]
    env.reset(options={"state": state})
    action = np.float32([*state[:3], state[3] / FINGER_TRAVEL])
    _, reward, terminated, _, info = env.step(action)
    return reward, terminated, info


@pytest.mark.parametrize(("offset", "success"), [((0.0, 0.0), True), ((0.013, 0.013), True), ((0.0, 0.021), False)])
def test_success_is_a_cube_at_rest_within_2_cm_of_the_target(offset: tuple[float, float], success: bool) -> None:
    reward, terminated, info = placed(offset=offset)
    assert terminated is success is info["is_success"] is (reward == 1.0)
    assert info["distance"] == pytest.approx(np.linalg.norm(offset), abs=1e-4)


def test_success_needs_the_cube_on_the_table_and_let_go() -> None:
    assert not placed(offset=(0.0, 0.0), height=0.05)[1]  # it falls
    around = [0.05, 0.05, CUBE_HALF, 0.0245, 0.0245]  # fingers on both sides press it
    reward, terminated, info = placed(offset=(0.0, 0.0), gripper=around)
    assert (terminated, info["held"]) == (False, True)
    assert 0.88 < reward < 0.901
    assert placed(offset=(0.0, 0.0), gripper=[*around[:3], FINGER_TRAVEL, FINGER_TRAVEL])[1]  # open, not yet away


def test_success_comes_after_half_a_second_at_any_rate() -> None:
    assert [placed(offset=(0.0, 0.0), held_s=held_s)[1] for held_s in (0.0, 0.4, 0.45)] == [False, False, True]
    assert placed(offset=(0.0, 0.0), held_s=0.0)[0] == 0.95
    state = expert_episode(make("PickPlace-v0", obs_keys=["state"]), 3)["state"][-1]
    for control_hz in (10, 20, 50):
        env = make("PickPlace-v0", obs_keys=["state"], control_hz=control_hz).unwrapped
        env.reset(options={"state": np.append(state[:-1], 0.0)})
        ends = [env.step(AWAY)[2] for _ in range(control_hz // 2)]
        assert ends == [*[False] * (control_hz // 2 - 1), True]


def test_reward_tells_the_stages_of_an_episode_apart() -> None:
    episode = expert_episode(make("PickPlace-v0", obs_keys=["state"]), 3)
    held = np.array([info["held"] for info in episode["info"]])[1:]
    rewards = episode["reward"]
    let_go = np.flatnonzero(held)[-1] + 1
    assert rewards[:let_go][~held[:let_go]].max() < 0.2
    assert rewards[held].min() >= 0.4
    assert rewards[held].max() < 0.901
    assert set(rewards[let_go:-1]) == {0.95}
    assert rewards[-1] == 1.0
    lifted = episode["state"][1:, 7] > CUBE_HALF + 0.03
    assert rewards[lifted].min() > 0.6


def test_info_and_reward_are_those_of_the_state_that_is_observed() -> None:
    """Contacts are those of this state, not those that the last physics step began with."""
    env = make("PickPlace-v0", obs_keys=["state"])
    for seed in range(5):
        episode = expert_episode(env, seed)
        for state, info in zip(episode["state"], episode["info"], strict=True):
            assert env.reset(options={"state": state})[1] == info


def test_truncated_after_120_steps() -> None:
    env = make("PickPlace-v0")
    env.reset(seed=0)
    ends = [env.step(AWAY)[2:4] for _ in range(120)]
    assert ends == [*[(False, False)] * 119, (False, True)]


def test_expert_solves_its_task_smoothly_and_in_time() -> None:
    env = make("PickPlace-v0", obs_keys=["state"])
    for seed in range(10):
        episode = expert_episode(env, seed)
        assert episode["info"][-1]["is_success"]
        assert 20 <= len(episode["action"]) <= 60
        assert env.action_space.contains(episode["action"][0])
        steps = np.diff(episode["action"][:, :3], axis=0)
        assert np.linalg.norm(steps, axis=1).max() < 0.026  # 0.5 m/s
        assert np.linalg.norm(np.diff(steps, axis=0), axis=1).max() < 0.0101  # 4 m/s^2


def test_expert_does_not_stand_still() -> None:
    """A policy that sees two observations cannot tell how long somebody has been waiting."""
    env = make("PickPlace-v0", obs_keys=["state"])
    for seed in range(10):
        states = expert_episode(env, seed)["state"][:, :5]  # gripper and fingers
        still = np.abs(np.diff(states, axis=0)).max(axis=1) < 0.0005
        assert not np.any(still[:-1] & still[1:])


@pytest.mark.parametrize("step", [20, 23, 26])
def test_expert_picks_up_what_was_dropped(step: int) -> None:
    env = make("PickPlace-v0", obs_keys=["state"])
    obs, info = env.reset(seed=3)
    expert = env.unwrapped.make_expert(3)
    terminated, steps = False, 0
    while not terminated and steps < 150:
        action = expert(obs, info)
        if step <= steps < step + 4:
            action = np.float32([*action[:3], 1.0])
        obs, _, terminated, _, info = env.unwrapped.step(action)
        steps += 1
    assert info["is_success"]
    assert steps > 50  # 45 when nothing is dropped


def test_expert_follows_a_cube_that_is_moved_away() -> None:
    env = make("PickPlace-v0", obs_keys=["state"]).unwrapped
    obs, info = env.reset(seed=3)
    expert = env.make_expert(3)
    for _ in range(14):  # it is about to close
        obs, _, _, _, info = env.step(expert(obs, info))
    state = obs["state"]
    state[5:7] += [0.09, -0.02]
    obs, info = env.reset(options={"state": state})
    for _ in range(100):
        obs, _, terminated, _, info = env.step(expert(obs, info))
        if terminated:
            break
    assert info["is_success"]


def test_expert_with_the_same_seed_does_the_same_and_with_another_another() -> None:
    env = make("PickPlace-v0", obs_keys=["state"])
    obs, info = env.reset(seed=0)
    actions = []
    for seed in (1, 1, 2):
        env.reset(seed=0)
        expert = env.unwrapped.make_expert(seed)
        steps = []
        for _ in range(10):
            steps.append(expert(obs, info))
            obs, _, _, _, info = env.step(steps[-1])
        actions.append(np.array(steps))
    np.testing.assert_array_equal(actions[0], actions[1])
    assert np.abs(actions[0] - actions[2]).max() > 0.001


@pytest.mark.slow
def test_expert_solves_98_of_100() -> None:
    env = make("PickPlace-v0", obs_keys=["state"])
    infos = [expert_episode(env, seed)["info"] for seed in range(300)]
    assert np.mean([info[-1]["is_success"] for info in infos]) >= 0.98
    assert np.mean([len(info) - 1 for info in infos]) < 50
