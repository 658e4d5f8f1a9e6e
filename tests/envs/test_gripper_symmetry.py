"""The mirror of the gripper's tasks: a symmetry of observations, of physics, of rewards and of pictures."""

import numpy as np
import pytest

from diffusion_policy_envs import gl
from tests.envs.gripper_episodes import expert_episode, make

KEYS = {"PickPlace-v0": ["gripper", "cube", "target", "state"], "Stack-v0": ["gripper", "cubes", "bases", "state"]}


@pytest.fixture(params=KEYS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_mirror_of_the_mirror_is_the_original(name: str) -> None:
    env = make(name, obs_keys=KEYS[name]).unwrapped
    rng = np.random.default_rng(0)
    obs = {key: rng.normal(size=(7, *space.shape)).astype(np.float32) for key, space in env.observation_space.items()}
    obs["image"] = rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    action = rng.normal(size=(7, 4)).astype(np.float32)
    once, there = env.mirror(obs, action)
    twice, back = env.mirror(once, there)
    np.testing.assert_array_equal(back, action)
    for key, values in obs.items():
        assert twice[key].dtype == once[key].dtype == values.dtype
        assert np.any(once[key] != values)
        np.testing.assert_array_equal(twice[key], values)


def test_observations_of_a_mirrored_state_are_the_mirrored_observations(name: str) -> None:
    states = expert_episode(make(name, obs_keys=["state"]), 6)["state"]
    env = make(name, obs_keys=KEYS[name]).unwrapped
    action = np.zeros((1, 4))
    for state in states[::4]:
        seen = {key: values[None] for key, values in env.observe({"state": state}).items()}
        mirrored = env.mirror(seen, action)[0]
        for key, values in env.observe({"state": mirrored["state"][0]}).items():
            np.testing.assert_allclose(values, mirrored[key][0], atol=1e-5)


def test_mirrored_actions_lead_to_mirrored_states_and_the_same_reward(name: str) -> None:
    """Through a whole episode with grasp and release; contacts are found in another order, so not bit by bit."""
    episode = expert_episode(make(name, obs_keys=["state"]), 6)
    env = make(name, obs_keys=["state"]).unwrapped
    mirrored, actions = env.mirror({"state": episode["state"]}, episode["action"])
    env.reset(options={"state": mirrored["state"][0]})
    positions = env.scene.model.nq
    for step, action in enumerate(actions):
        obs, reward, _, _, info = env.step(action)
        np.testing.assert_allclose(obs["state"][:3], mirrored["state"][step + 1, :3], atol=5e-4)
        np.testing.assert_allclose(obs["state"][:positions], mirrored["state"][step + 1, :positions], atol=0.05)
    assert reward == 1.0
    assert info["is_success"]


@pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL")
def test_pictures_of_a_mirrored_state_are_mirrored_pictures(name: str) -> None:
    env = make(name, obs_keys=["state", "image", "wrist"]).unwrapped
    obs, _ = env.reset(seed=1)
    mirrored, _ = env.mirror({key: values[None] for key, values in obs.items()}, np.zeros((1, 4)))
    seen = env.observe({"state": mirrored["state"][0]})
    for key in ("image", "wrist"):
        error = np.abs(seen[key].astype(int) - mirrored[key][0]).mean()
        assert error < 0.1 * np.abs(seen[key].astype(int) - obs[key]).mean()  # edges fall between pixels
    env.close()
