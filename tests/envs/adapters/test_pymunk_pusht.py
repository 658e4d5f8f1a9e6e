"""PymunkPushT-v0: gym-pusht's physics behind our observations."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy_envs.pusht.geometry import coverage
from diffusion_policy_envs.pusht.replay import agent_velocities, max_coverage, replay

Recordings = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module", autouse=True)
def pusht() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pygame's packaging
        pytest.importorskip("gym_pusht", reason="needs gym-pusht (extra pusht)")


def make(name: str = "PymunkPushT-v0", **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(f"diffusion_policy_envs:{name}", **kwargs)


def physics() -> Any:
    from diffusion_policy_envs.adapters.pusht_pymunk import PymunkPhysics

    return PymunkPhysics()


def test_offers_what_our_own_offers() -> None:
    ours, theirs = make("PushT-v0"), make()
    assert theirs.observation_space == ours.observation_space
    assert theirs.action_space == ours.action_space
    assert theirs.spec is not None
    assert theirs.spec.max_episode_steps == 300


def test_the_same_seed_begins_alike_in_both() -> None:
    keys = ["state", "keypoints", "agent_pos"]
    ours, theirs = make("PushT-v0", obs_keys=keys), make(obs_keys=keys)
    for seed in range(100_000, 100_020):
        (one, said), (other, told) = ours.reset(seed=seed), theirs.reset(seed=seed)
        assert said == told
        for key in keys:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_state_begins_exactly_there() -> None:
    """Where the angle came last, the block would turn round its centre of mass, away from there."""
    state = np.array([100.0, 120.0, 300.0, 310.0, 2.0])
    obs, _ = make(obs_keys=["state"]).reset(options={"state": state})
    np.testing.assert_allclose(obs["state"], state, atol=1e-4)


def test_coverage_is_that_of_gym_pusht() -> None:
    board = physics()
    for angle in np.linspace(0.0, 6.0, 13):
        board.set_state([50.0, 50.0, 256.0 + 20 * np.sin(angle), 260.0, angle])
        assert board.coverage == pytest.approx(float(coverage(board.state[2:])), abs=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 5, 10, 20, 25, 50, 100])
def test_a_control_step_has_its_physics_steps(num_steps: int) -> None:
    """At rest and far from all, the agent's controller is a known linear map: of each 10 ms."""
    board, x, v = physics(), 100.0, 0.0
    board.set_state([x, 100.0, 400.0, 400.0, 0.0])
    board.step(np.array([150.0, 100.0]), num_steps)
    for _ in range(num_steps):
        v += 0.01 * (100.0 * (150.0 - x) - 20.0 * v)
        x += 0.01 * v
    np.testing.assert_allclose(board.state[:2], [x, 100.0], atol=1e-9)
    np.testing.assert_allclose(board.agent_velocity, [v, 0.0], atol=1e-9)


def test_human_demonstrations_replay_as_they_were_recorded(human_episodes: Recordings) -> None:
    """In the engine that recorded them: eight actions from a recorded state end there, whole episodes nearly so."""
    board, errors, best = physics(), [], []
    for episode in human_episodes[::3]:
        state, action = episode["state"], episode["action"]
        velocity = agent_velocities(state[:, :2], action)
        for i in range(0, len(state) - 8, 24):
            end = replay(board, state[i], velocity[i], action[i : i + 8])[-1]
            errors.append(np.linalg.norm(end[2:4] - state[i + 8, 2:4]))
        best.append((max_coverage(replay(board, state[0], np.zeros(2), action)), max_coverage(state)))
    assert np.median(errors) < 1e-3  # px
    assert np.percentile(errors, 90) < 0.2
    replayed, recorded = np.mean(best, axis=0)
    assert abs(replayed - recorded) < 0.1


def test_our_planner_solves_it() -> None:
    env = make()
    obs, info = env.reset(seed=100_003)
    expert, over = env.unwrapped.make_expert(0), False
    while not over:
        obs, reward, terminated, truncated, info = env.step(expert(obs, info))
        over = terminated or truncated
    assert terminated
    assert info["is_success"]
    assert reward == 1.0
