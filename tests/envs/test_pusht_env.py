"""PushT-v0: Gymnasium's contract, determinism, reset options, rewards, bad input."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import diffusion_policy_envs  # noqa: F401 (registers the ids)
from diffusion_policy_envs.pusht.geometry import GOAL_POSE, KEYPOINTS, block_points

ID = "diffusion_policy_envs:PushT-v0"
ALL_KEYS = ["agent_pos", "keypoints", "state", "image"]
REGISTERED = [
    f"diffusion_policy_envs:{spec.id}"
    for spec in gym.registry.values()
    if str(spec.entry_point).startswith("diffusion_policy_envs.")
    and not str(spec.entry_point).startswith(
        "diffusion_policy_envs.adapters."
    )  # they need packages: tests/envs/adapters
]


def make(**kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(ID, **kwargs)


def rollout(env: gym.Env[Any, Any], seed: int, num_steps: int = 40) -> list[Any]:
    actions = np.random.default_rng(seed).uniform(100, 400, (num_steps, 2)).astype(np.float32)
    trace: list[Any] = [env.reset(seed=seed)]
    trace += [env.step(action) for action in actions]
    return trace


@pytest.mark.parametrize("env_id", REGISTERED)
def test_every_registered_id_passes_check_env(env_id: str) -> None:
    with warnings.catch_warnings():
        # Actions are in px, as in the human demonstrations; the checker recommends [-1, 1].
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space.*")
        try:
            env = gym.make(env_id).unwrapped
        except gym.error.DependencyNotInstalled as error:
            pytest.skip(str(error))
        check_env(env)


def test_same_seed_gives_the_same_episode_bit_for_bit() -> None:
    first, second = rollout(make(obs_keys=["state"]), 3), rollout(make(obs_keys=["state"]), 3)
    assert repr(first) == repr(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0]["state"], other[0]["state"])


def test_same_seed_gives_the_same_episode_after_another() -> None:
    env = make(obs_keys=["state"])
    first = rollout(env, 3)
    rollout(env, 4)
    for one, other in zip(first, rollout(env, 3), strict=True):
        np.testing.assert_array_equal(one[0]["state"], other[0]["state"])


def test_other_seeds_start_elsewhere() -> None:
    env = make(obs_keys=["state"])
    starts = np.array([env.reset(seed=seed)[0]["state"] for seed in range(200)])
    assert len(np.unique(starts, axis=0)) == 200
    assert np.all((starts[:, :2] >= 50) & (starts[:, :2] <= 450))
    assert np.all((starts[:, 2:4] >= 99.99) & (starts[:, 2:4] <= 400.01))
    assert np.all((starts[:, 4] >= 0) & (starts[:, 4] < 2 * np.pi))


def test_drawing_does_not_change_the_episode() -> None:
    plain = rollout(make(obs_keys=["state"]), 5, 15)
    drawn = rollout(make(obs_keys=["state", "image"]), 5, 15)
    for one, other in zip(plain, drawn, strict=True):
        np.testing.assert_array_equal(one[0]["state"], other[0]["state"])


@pytest.mark.parametrize("state", [[100.0, 120.5, 300.25, 200.0, 1.0], [511.0, 3.0, 256.0, 256.0, 6.2]])
def test_reset_starts_exactly_at_the_given_state(state: list[float]) -> None:
    obs, _ = make(obs_keys=ALL_KEYS).reset(seed=0, options={"state": state})
    np.testing.assert_array_equal(obs["state"], np.float32(state))
    np.testing.assert_array_equal(obs["agent_pos"], np.float32(state[:2]))
    np.testing.assert_allclose(obs["keypoints"], block_points(KEYPOINTS, state[2:]), atol=1e-4)


def test_reset_starts_at_rest_and_the_block_stays_until_pushed() -> None:
    env = make(obs_keys=["state"])
    state = [50.0, 50.0, 300.0, 300.0, 2.0]
    env.reset(options={"state": state})
    for _ in range(10):
        obs, *_ = env.step(np.float32([50.0, 50.0]))
    np.testing.assert_array_equal(obs["state"], np.float32(state))


def test_reset_takes_a_velocity_of_the_agent() -> None:
    env = make(obs_keys=["agent_pos"])
    state = [50.0, 50.0, 300.0, 300.0, 2.0]
    env.reset(options={"state": state, "agent_velocity": [100.0, 0.0]})
    obs, *_ = env.step(np.float32([50.0, 50.0]))
    assert obs["agent_pos"][0] > 52.0
    assert obs["agent_pos"][1] == pytest.approx(50.0)


def test_angle_is_reported_within_one_turn() -> None:
    obs, _ = make(obs_keys=["state"]).reset(options={"state": [50, 50, 256, 256, -0.5]})
    assert obs["state"][4] == pytest.approx(2 * np.pi - 0.5)


def test_reward_is_the_coverage_scaled_and_clipped() -> None:
    env = make()
    for shift, covered in ((0.0, True), (1.0, True), (10.0, False), (150.0, False)):
        pose = GOAL_POSE + np.array([shift, 0.0, 0.0])
        env.reset(options={"state": [20.0, 20.0, *pose]})
        _, reward, terminated, truncated, info = env.step(np.float32([20.0, 20.0]))
        assert reward == pytest.approx(min(info["coverage"] / 0.95, 1.0))
        assert terminated is covered is info["is_success"] is (info["coverage"] > 0.95)
        assert not truncated


def test_max_coverage_remembers_the_start_and_forgets_the_last_episode() -> None:
    env = make()
    _, info = env.reset(options={"state": [20.0, 20.0, *GOAL_POSE]})
    assert info["max_coverage"] == pytest.approx(1.0)
    _, info = env.reset(options={"state": [20.0, 20.0, 420.0, 100.0, 0.0]})
    assert info["max_coverage"] == info["coverage"] == 0.0


def test_truncated_after_300_steps() -> None:
    env = make(obs_keys=["agent_pos"])
    env.reset(options={"state": [20.0, 20.0, 400.0, 400.0, 0.0]})
    ends = [env.step(np.float32([20.0, 20.0]))[2:4] for _ in range(300)]
    assert ends[:-1] == [(False, False)] * 299
    assert ends[-1] == (False, True)


@pytest.mark.parametrize("control_hz", [5, 10, 20, 50])
def test_control_hz_changes_only_how_often_actions_are_taken(control_hz: int) -> None:
    env = make(obs_keys=["state"], control_hz=control_hz)
    assert env.metadata["render_fps"] == control_hz
    env.reset(options={"state": [100.0, 256.0, 256.0, 226.0, 0.3]})
    for _ in range(2 * control_hz):  # 2 s towards the same target
        obs, *_ = env.step(np.float32([300.0, 256.0]))
    reference = make(obs_keys=["state"])
    reference.reset(options={"state": [100.0, 256.0, 256.0, 226.0, 0.3]})
    for _ in range(20):
        expected, *_ = reference.step(np.float32([300.0, 256.0]))
    np.testing.assert_array_equal(obs["state"], expected["state"])


def test_actions_outside_the_board_are_clipped() -> None:
    ends = []
    for target in ([600.0, -50.0], [512.0, 0.0]):
        env = make(obs_keys=["agent_pos"])
        env.reset(options={"state": [400.0, 100.0, 100.0, 400.0, 0.0]})
        ends.append(env.unwrapped.step(np.float32(target))[0]["agent_pos"])
    np.testing.assert_array_equal(*ends)


@pytest.mark.slow
def test_observations_stay_in_their_space_when_the_block_is_shoved_into_walls() -> None:
    env = make(obs_keys=["state", "keypoints"])
    rng = np.random.default_rng(0)
    for seed in range(40):
        obs, _ = env.reset(seed=seed)
        for step in range(100):
            block, agent = obs["state"][2:4], obs["state"][:2]
            target = np.clip(agent + 5 * (block - agent), 0, 512) if step % 15 < 8 else rng.uniform(0, 512, 2)
            obs, *_ = env.step(np.float32(target))
            assert env.observation_space.contains(obs)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([np.nan, 1.0], "action must be finite"),
        ([1.0], r"action must have shape \(2,\) .* got \(1,\)"),
        ([[1.0, 2.0]], r"got \(1, 2\)"),
        ("up", "action must be 2 numbers"),
    ],
)
def test_bad_actions_are_explained(action: Any, message: str) -> None:
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": [1, 2, 3]}, r"options\['state'\] must have shape \(5,\)"),
        ({"state": [0, 0, 0, np.inf, 0]}, "must be finite"),
        ({"state": [900, 0, 0, 0, 0]}, r"must have positions in \[0, 512\] px"),
        ({"start": [0] * 5}, r"some of \['state', 'agent_velocity'\], but got \['start'\]"),
        ({"agent_velocity": [1.0]}, "agent_velocity"),
    ],
)
def test_bad_reset_options_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().unwrapped.reset(options=options)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs_keys": ["pixels"]}, r"\['agent_pos', 'keypoints', 'state', 'image', 'tilted'\], but got \['pixels'\]"),
        ({"obs_keys": "state"}, "obs_keys must be a list"),
        ({"obs_keys": []}, "obs_keys must be a list"),
        ({"control_hz": 30}, "control_hz must be one of .*, but got 30"),
        ({"image_size": 0}, "image_size must be"),
        ({"renderer": "gl"}, r"renderer must be one of \[None, 'mujoco', 'draw2d'\], but got 'gl'"),
        ({"render_mode": "human"}, "render_mode must be one of"),
    ],
)
def test_bad_arguments_are_explained(kwargs: dict[str, Any], message: str) -> None:
    from diffusion_policy_envs.pusht.env import PushTEnv

    with pytest.raises(ValueError, match=message):
        PushTEnv(**kwargs)
