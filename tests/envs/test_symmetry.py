"""The mirror of Push-T: a symmetry of shapes, of physics and of pictures."""

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy_envs.pusht.geometry import KEYPOINTS, block_points, coverage
from diffusion_policy_envs.pusht.symmetry import mirror_actions, mirror_observations


def states(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.uniform(50, 450, (count, 4)), rng.uniform(0, 2 * np.pi, count)])


def test_the_mirror_of_the_mirror_is_the_original() -> None:
    state = states(50)
    obs = {"state": state, "agent_pos": state[:, :2], "keypoints": block_points(KEYPOINTS, state[:, 2:])}
    obs["image"] = np.random.default_rng(1).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    twice = mirror_observations(mirror_observations(obs))
    for key, values in obs.items():
        np.testing.assert_allclose(twice[key], values, atol=1e-9)
        assert twice[key].dtype == values.dtype
    np.testing.assert_allclose(mirror_actions(mirror_actions(state[:, :2])), state[:, :2])


def test_mirrored_keypoints_are_those_of_the_mirrored_pose() -> None:
    state = states(50)
    keypoints = block_points(KEYPOINTS, state[:, 2:])
    mirrored = mirror_observations({"state": state, "keypoints": keypoints})
    np.testing.assert_allclose(mirrored["keypoints"], block_points(KEYPOINTS, mirrored["state"][:, 2:]), atol=1e-9)


def test_mirrored_blocks_cover_as_much_of_the_goal() -> None:
    near = np.random.default_rng(0).normal([256, 256, np.pi / 4], [20, 20, 0.3], (100, 3))
    state = np.column_stack([np.zeros((100, 2)), near])
    mirrored = mirror_observations({"state": state})["state"]
    assert np.ptp(coverage(near)) > 0.5
    np.testing.assert_allclose(coverage(mirrored[:, 2:]), coverage(near), atol=1e-9)


def test_mirrored_actions_lead_to_mirrored_states() -> None:
    start = np.array([150.0, 230.0, 260.0, 240.0, 1.0])
    actions = np.linspace([180, 230], [380, 280], 40)  # through the block
    twins = []
    for state, targets in [
        (start, actions),
        (mirror_observations({"state": start[None]})["state"][0], mirror_actions(actions)),
    ]:
        env = gym.make("diffusion_policy_envs:PushT-v0", obs_keys=["state"])
        env.reset(seed=0, options={"state": state})
        twins.append(np.array([env.step(target)[0]["state"] for target in targets]))
        env.close()
    seen, mirrored = twins[0], mirror_observations({"state": twins[1]})["state"]
    assert np.linalg.norm(seen[-1, 2:4] - start[2:4]) > 50, "the block was not pushed"
    np.testing.assert_allclose(mirrored, seen, atol=1e-3)


@pytest.mark.parametrize("renderer", ["draw2d", "mujoco"])
def test_mirrored_pictures_show_mirrored_states(renderer: str) -> None:
    start = np.array([150.0, 330.0, 300.0, 200.0, 1.0])
    pictures = []
    for state in (start, mirror_observations({"state": start[None]})["state"][0]):
        env = gym.make("diffusion_policy_envs:PushT-v0", obs_keys=["image"], renderer=renderer)
        obs, _ = env.reset(seed=0, options={"state": state})
        pictures.append(obs["image"].astype(int))
        env.close()
    mirrored = mirror_observations({"image": pictures[1][None]})["image"][0]
    error = np.abs(mirrored - pictures[0]).mean()
    assert error < 0.2 * np.abs(pictures[1] - pictures[0]).mean()  # edges fall between pixels
