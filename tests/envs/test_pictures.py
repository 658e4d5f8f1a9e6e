"""Recorded steps as pictures, actions as places on them, places as actions."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy_envs.pusht.geometry import KEYPOINTS, block_points, block_pose
from diffusion_policy_envs.pusht.recorded import recorded_state

ID = "diffusion_policy_envs:PushT-v0"
STATE = np.array([120.0, 400.0, 300.0, 180.0, 2.0])
SIZE = 128


@pytest.fixture
def env():
    made = gym.make(ID, obs_keys=["state", "keypoints", "agent_pos"], render_mode="rgb_array", render_size=SIZE)
    yield made.unwrapped
    made.close()


@given(st.floats(-100, 600), st.floats(-100, 600), st.floats(0, 2 * np.pi, exclude_max=True))
def test_block_pose_is_the_inverse_of_block_points(x, y, angle):
    found = block_pose(KEYPOINTS, block_points(KEYPOINTS, [x, y, angle]))
    np.testing.assert_allclose(found[:2], [x, y], atol=1e-8)
    assert np.cos(found[2] - angle) == pytest.approx(1.0)


def test_block_pose_of_noisy_points_is_the_nearest_one():
    rng = np.random.default_rng(0)
    seen = block_points(KEYPOINTS, STATE[2:]) + rng.normal(0, 3, KEYPOINTS.shape)
    best = block_pose(KEYPOINTS, seen)

    def error(pose):
        return np.sum((block_points(KEYPOINTS, pose) - seen) ** 2)

    for change in rng.normal(0, [0.5, 0.5, 0.01], (100, 3)):
        assert error(best) < error(best + change)


def test_every_spelling_of_a_recorded_step_gives_the_same_state():
    keypoints, agent = block_points(KEYPOINTS, STATE[2:]), STATE[:2]
    np.testing.assert_array_equal(recorded_state({"state": STATE, "n_contacts": np.ones(1)}), STATE)
    for name in ("keypoints", "keypoint"):
        np.testing.assert_allclose(recorded_state({name: keypoints, "agent_pos": agent}), STATE, atol=1e-9)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"img": np.zeros(3), "keypoint": KEYPOINTS}, "must hold state, or keypoints and agent_pos, .* img, keypoint;"),
        ({}, "it has none"),
        ({"state": STATE[None]}, r"recorded state must be \(5,\) finite numbers, but got \(1, 5\); give one step"),
        ({"state": STATE * np.nan}, "with NaN or infinity"),
        ({"agent_pos": STATE[:2], "keypoints": KEYPOINTS[:4]}, r"recorded keypoints must be \(9, 2\)"),
    ],
)
def test_steps_that_do_not_show_the_board_are_explained(obs, message):
    with pytest.raises(ValueError, match=message):
        recorded_state(obs)


def test_picture_of_a_recorded_step_is_what_was_rendered_then(env):
    obs, _ = env.reset(seed=1)
    for target in ([250.0, 250.0], [300.0, 220.0], [280.0, 200.0]):
        then = env.render()
        np.testing.assert_array_equal(env.picture(obs, SIZE), then)
        without_state = {key: obs[key] for key in ("keypoints", "agent_pos")}
        assert np.abs(env.picture(without_state, SIZE).astype(int) - then).mean() < 0.05  # float32 keypoints
        obs, *_ = env.step(np.float32(target))


def test_pictures_leave_the_running_episode_alone(env):
    env.reset(seed=1)
    before, shown = env.physics.state, env.render()
    env.picture({"state": STATE}, 64)
    np.testing.assert_array_equal(env.physics.state, before)
    np.testing.assert_array_equal(env.render(), shown)


def test_action_pixels_lie_where_the_agent_is_drawn(env):
    # The agent is the one blue disc: the mean of its pixels' centres is where its own position, as an action, falls.
    picture = env.picture({"state": STATE}, SIZE).astype(int)
    rows, columns = np.nonzero((picture[..., 2] > 200) & (picture[..., 0] < 120))
    drawn = np.array([columns.mean(), rows.mean()]) + 0.5
    np.testing.assert_allclose(env.action_pixels(STATE[None, :2], SIZE)[0], drawn, atol=0.1)


def test_action_at_pixel_is_the_inverse_of_action_pixels(env):
    actions = np.random.default_rng(0).uniform(0, 512, (50, 2))
    for action, place in zip(actions, env.action_pixels(actions, 300), strict=True):
        np.testing.assert_allclose(env.action_at_pixel(place, 300), action, rtol=1e-6)
    beyond = env.action_at_pixel([-20.0, 310.0], 300)
    np.testing.assert_array_equal(beyond, [0.0, 512.0])
    assert env.action_space.contains(beyond)


def test_resting_action_leaves_the_agent_where_it_is(env):
    env.reset(options={"state": STATE})
    for _ in range(5):
        obs, *_ = env.step(env.resting_action())
    np.testing.assert_allclose(obs["agent_pos"], STATE[:2])


def test_tilted_picture_of_the_mirror_image_is_the_mirror_image_of_the_tilted_picture() -> None:
    env = gym.make(ID, obs_keys=["tilted", "image"], image_size={"tilted": 64, "image": 48}).unwrapped
    if env.renderer != "mujoco":  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="camera 'tilted' needs MuJoCo's pictures"):
            env.reset(seed=0)
        return
    state = np.array([[150.0, 300.0, 330.0, 200.0, 1.0]], np.float32)
    seen = env.observe({"state": state[0]})  # type: ignore[attr-defined]
    assert {key: value.shape for key, value in seen.items()} == {"tilted": (64, 64, 3), "image": (48, 48, 3)}
    other = env.mirror({"state": state}, np.zeros((1, 2), np.float32))[0]["state"][0]  # type: ignore[attr-defined]
    expected = env.observe({"state": other})  # type: ignore[attr-defined]
    turned = env.mirror({key: value[None] for key, value in seen.items()}, np.zeros((1, 2)))[0]  # type: ignore[attr-defined]
    for key, picture in expected.items():
        differs = np.abs(turned[key][0].astype(int) - picture) > 40
        assert differs.mean() < 0.01, key  # edges are anti-aliased
    assert (seen["tilted"] != expected["tilted"]).mean() > 0.02


def test_image_size_of_a_picture_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image_size must name some of \['image', 'tilted'\], but got \['wrist'\]"):
        gym.make(ID, image_size={"wrist": 64})
