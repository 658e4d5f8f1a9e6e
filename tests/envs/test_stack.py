"""Stack-v0: what counts as stacked, subgoals and their order, the reward, and its expert."""

from typing import Any

import numpy as np
import pytest

from diffusion_policy_envs.gripper.env import GripperEnv
from diffusion_policy_envs.gripper.scene import CUBE_HALF, FINGER_TRAVEL
from diffusion_policy_envs.stack.subgoals import BASE_HEIGHT
from tests.envs.gripper_episodes import expert_episode, make

AWAY = np.float32([0.0, 0.0, 0.24, 1.0])
BASES = np.array([[-0.1, 0.0], [0.1, 0.0]])
ASIDE = {"red": (-0.1, -0.13, CUBE_HALF), "blue": (0.1, -0.13, CUBE_HALF)}
ON = {
    "red": (*BASES[0], BASE_HEIGHT + CUBE_HALF),
    "blue": (*BASES[1], BASE_HEIGHT + CUBE_HALF),
}


def make_env() -> GripperEnv:
    env = make("Stack-v0", obs_keys=["state"]).unwrapped
    assert isinstance(env, GripperEnv)
    return env


def state_with(env: GripperEnv, red: Any, blue: Any) -> np.ndarray:
    """Returns a state at rest with the gripper far up and the cubes' centres at these places."""
    state = 0.0 * env.reset(seed=0)[0]["state"]
    state[:5] = [*AWAY[:3], FINGER_TRAVEL, FINGER_TRAVEL]
    state[5:19] = [*red, 1, 0, 0, 0, *blue, 1, 0, 0, 0]
    state[-5:] = *BASES.ravel(), 0.45  # so that one step completes half a second
    return state


def rested(red: Any, blue: Any) -> tuple[float, bool, dict[str, Any]]:
    env = make_env()
    env.reset(options={"state": state_with(env, red, blue)})
    _, reward, terminated, _, info = env.step(AWAY)
    return reward, terminated, info


def test_success_is_both_cubes_on_the_blocks_of_their_colours() -> None:
    reward, terminated, info = rested(ON["red"], ON["blue"])
    assert terminated
    assert info["is_success"]
    assert reward == 1.0
    assert info["subgoals"] == {"red": True, "blue": True}


def test_cubes_on_the_wrong_blocks_or_beside_them_count_nothing() -> None:
    for red, blue in ((ON["blue"], ON["red"]), (ASIDE["red"], ASIDE["blue"])):
        reward, terminated, info = rested(red, blue)
        assert not terminated
        assert reward < 0.1
        assert info["subgoals"] == {"red": False, "blue": False}


@pytest.mark.parametrize(("shift", "counts"), [(0.02, True), (0.027, False)])
def test_cube_counts_within_25_mm_of_its_block(shift: float, counts: bool) -> None:
    x, y, z = ON["blue"]
    reward, _, info = rested(ASIDE["red"], (x + shift, y, z))
    assert info["subgoals"] == {"red": False, "blue": counts}
    assert (reward >= 0.5) is counts
    assert info["behavior"] == ""


def test_cube_that_falls_onto_its_block_counts_when_it_rests() -> None:
    env = make_env()
    x, y, z = ON["red"]
    env.reset(options={"state": state_with(env, (x, y, z + 0.05), ASIDE["blue"])})
    counts = [env.step(AWAY)[4]["subgoals"]["red"] for _ in range(20)]
    assert not counts[0]
    assert counts[-1]


def test_cube_that_is_still_held_does_not_count() -> None:
    env = make_env()
    state = state_with(env, ON["red"], ASIDE["blue"])
    state[:5] = [*ON["red"], 0.0247, 0.0247]
    env.reset(options={"state": state})
    _, reward, _, _, info = env.step(np.float32([*ON["red"], 0.0]))
    assert not info["subgoals"]["red"]
    assert 0.4 < reward < 0.5
    for _ in range(3):
        _, reward, _, _, info = env.step(np.float32([*ON["red"], 1.0]))
    assert info["subgoals"]["red"]
    assert reward >= 0.5


def test_subgoals_stay_reached_though_the_cube_is_gone_and_the_reward_does_not() -> None:
    env = make_env()
    red_stands, blue_stands = state_with(env, ON["red"], ASIDE["blue"]), state_with(env, ASIDE["red"], ON["blue"])
    _, info = env.reset(options={"state": red_stands})
    assert info["subgoals"] == {"red": True, "blue": False}
    env.scene.set_state(blue_stands[:-1])  # somebody took the red cube away and put down the blue one
    _, reward, terminated, _, info = env.step(AWAY)
    assert info["subgoals"] == {"red": True, "blue": True}
    assert info["behavior"] == "red,blue"
    assert not terminated
    assert 0.5 <= reward < 0.6
    _, info = env.reset(seed=0)
    assert info["subgoals"] == {"red": False, "blue": False}
    assert info["behavior"] == ""


def test_behavior_is_the_order_in_which_the_expert_reached_the_subgoals() -> None:
    env = make("Stack-v0", obs_keys=["state"])
    seen = set()
    for seed in range(8):
        infos = expert_episode(env, seed)["info"]
        assert infos[-1]["is_success"]
        first = next(info["subgoals"] for info in infos if any(info["subgoals"].values()))
        assert infos[-1]["behavior"].split(",")[0] == next(name for name, reached in first.items() if reached)
        assert infos[-1]["behavior"] in env.unwrapped.behaviors
        for info in infos:
            assert info["behavior"] == (infos[-1]["behavior"] if all(info["subgoals"].values()) else "")
        seen.add(infos[-1]["behavior"])
    assert seen == set(env.unwrapped.behaviors)


def test_reward_grows_past_a_half_only_with_a_cube_on_its_block() -> None:
    episode = expert_episode(make("Stack-v0", obs_keys=["state"]), 3)
    one_reached = np.array([any(info["subgoals"].values()) for info in episode["info"][1:]])
    rewards = episode["reward"]
    assert rewards[~one_reached].max() < 0.451
    assert rewards[one_reached].min() >= 0.5
    assert rewards[:-1].max() < 0.951
    assert rewards[-1] == 1.0


def test_truncated_after_270_steps() -> None:
    env = make("Stack-v0")
    env.reset(seed=0)
    ends = [env.step(AWAY)[2:4] for _ in range(270)]
    assert ends == [*[(False, False)] * 269, (False, True)]


def test_expert_starts_with_either_cube_in_the_same_scene() -> None:
    env = make_env()
    toward = []
    for seed in range(6):
        obs, info = env.reset(seed=11)
        expert = env.make_expert(seed)
        for _ in range(12):
            obs, _, _, _, info = env.step(expert(obs, info))
        gaps = [np.linalg.norm(env.scene.cube_position(i)[:2] - env.scene.gripper[:2]) for i in range(2)]
        toward.append(int(np.argmin(gaps)))
    assert set(toward) == {0, 1}


def test_expert_brings_back_what_was_taken_from_a_block() -> None:
    env = make_env()
    obs, info = env.reset(seed=3)
    expert = env.make_expert(3)
    taken = False
    for _ in range(300):
        obs, _, terminated, _, info = env.step(expert(obs, info))
        reached = [i for i, colour in enumerate(("red", "blue")) if info["subgoals"][colour]]
        if not taken and len(reached) == 1 and env.scene.gripper[2] > 0.12:
            state, start = obs["state"], 5 + 7 * reached[0]
            state[start + 2] = CUBE_HALF
            state[start : start + 2] = next(
                place
                for place in ([0.12, 0.12], [-0.12, 0.12], [0.12, -0.12], [-0.12, -0.12], [0.0, 0.0])
                if min(np.abs(np.array(place) - other[:2]).max() for other in _things(env)) > 0.08
            )
            env.scene.set_state(state[:-1])
            taken = True
        if terminated:
            break
    assert taken
    assert info["is_success"]


def _things(env: GripperEnv) -> list[np.ndarray]:
    return [*(env.scene.cube_position(i) for i in range(2)), *(env.scene.place(i) for i in range(2))]


def test_expert_does_not_stand_still() -> None:
    env = make("Stack-v0", obs_keys=["state"])
    for seed in range(4):
        states = expert_episode(env, seed)["state"][:, :5]  # gripper and fingers
        still = np.abs(np.diff(states, axis=0)).max(axis=1) < 0.0005
        assert not np.any(still[:-1] & still[1:])


@pytest.mark.slow
def test_expert_solves_97_of_100_in_both_orders() -> None:
    env = make("Stack-v0", obs_keys=["state"])
    infos = [expert_episode(env, seed)["info"] for seed in range(300)]
    assert np.mean([info[-1]["is_success"] for info in infos]) >= 0.97
    assert 0.42 < np.mean([info[-1]["behavior"] == "red,blue" for info in infos]) < 0.58
    assert np.mean([len(info) - 1 for info in infos]) < 115
