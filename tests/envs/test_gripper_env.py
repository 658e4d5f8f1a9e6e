"""What all environments with the gripper promise: determinism, states that restore, pictures, words for bad input."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffusion_policy_envs
from diffusion_policy_envs import gl
from diffusion_policy_envs.gripper.scene import CUBE_HALF
from tests.envs.gripper_episodes import expert_episode, make

NAMES = ["PickPlace-v0", "Stack-v0"]
needs_gl = pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_same_seed_gives_the_same_episode_bit_for_bit_after_another(name: str) -> None:
    env = make(name, obs_keys=["state"])
    first = expert_episode(env, 3)
    expert_episode(env, 4)
    second = expert_episode(env, 3)
    for key in ("state", "action", "reward"):
        np.testing.assert_array_equal(first[key], second[key])
    assert first["info"] == second["info"]


def test_every_state_of_an_episode_restores_it_bit_for_bit(name: str) -> None:
    """Also in the middle of a grasp, where contacts and the solver's memory would show."""
    env = make(name, obs_keys=["state"])
    episode = expert_episode(env, 5)
    other = make(name, obs_keys=["state"])
    for start in range(0, len(episode["action"]), 3):
        obs, _ = other.reset(options={"state": episode["state"][start]})
        np.testing.assert_array_equal(obs["state"], episode["state"][start])
        for step in range(start, min(start + 6, len(episode["action"]))):
            obs, reward, *_ = other.step(episode["action"][step])
            np.testing.assert_array_equal(obs["state"], episode["state"][step + 1])
            assert reward == episode["reward"][step]


def test_starts_differ_and_lie_apart(name: str) -> None:
    env = make(name, obs_keys=["state"])
    scene = env.unwrapped.scene
    states = []
    for seed in range(100):
        states.append(env.reset(seed=seed)[0]["state"])
        cubes = [scene.cube_position(i) for i in range(len(scene.cubes))]
        things = [*(cube[:2] for cube in cubes), *(scene.place(i) for i in range(len(scene.places)))]
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(things) for b in things[:i]]
        assert min(gaps) >= 0.1 - 1e-6
        assert np.abs(things).max() <= 0.15
        assert all(scene.rests(i) and not scene.touched(i) for i in range(len(cubes)))
        np.testing.assert_allclose([cube[2] for cube in cubes], CUBE_HALF, atol=1e-6)
    assert len(np.unique(states, axis=0)) == 100


def test_nothing_moves_until_the_gripper_does(name: str) -> None:
    """Also where it starts low: it touches nothing."""
    env = make(name, obs_keys=["state", "gripper"])
    for seed in range(20):
        start, _ = env.reset(seed=seed)
        for _ in range(5):
            obs, *_ = env.step(start["gripper"])
        np.testing.assert_allclose(obs["state"], start["state"], atol=2e-3)


def test_some_starts_look_as_if_a_grasp_had_missed(name: str) -> None:
    env = make(name, obs_keys=["gripper"])
    starts = np.array([env.reset(seed=seed)[0]["gripper"] for seed in range(200)])
    closed = starts[:, 3] < 0.999
    assert 0.2 < closed.mean() < 0.4
    assert np.all(starts[~closed, 2] >= 0.12)
    assert np.mean(starts[closed, 2] < 0.1) > 0.2
    assert starts[closed, 3].min() < 0.1


def test_random_actions_keep_observations_in_their_space_and_rewards_in_range(name: str) -> None:
    env = make(name, obs_keys=["state", "gripper"])
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(80):
        obs, reward, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)
        assert 0.0 <= reward <= 1.0


def test_actions_outside_are_clipped(name: str) -> None:
    ends = []
    for action in ([0.5, -0.5, 0.0, 1.7], [0.2, -0.2, 0.02, 1.0]):
        env = make(name, obs_keys=["state"]).unwrapped
        env.reset(seed=0)
        ends.append(env.step(action)[0]["state"])
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("control_hz", [10, 40])
def test_control_hz_says_how_often_actions_are_taken(name: str, control_hz: int) -> None:
    env = make(name, obs_keys=["gripper"], control_hz=control_hz)
    assert env.metadata["render_fps"] == control_hz
    target = np.float32([0.05, 0.05, 0.15, 0.8])
    env.reset(seed=0)
    for _ in range(control_hz):
        obs, *_ = env.step(target)
    reference = make(name, obs_keys=["gripper"])
    reference.reset(seed=0)
    for _ in range(20):
        expected, *_ = reference.step(target)
    np.testing.assert_allclose(obs["gripper"], expected["gripper"], atol=1e-6)  # rounded after each action


@needs_gl
def test_drawing_changes_nothing_and_pictures_repeat_from_recorded_states(name: str) -> None:
    kwargs = {"image_size": {"image": 64, "wrist": 48}, "render_mode": "rgb_array", "render_size": 80}
    env = make(name, obs_keys=["state", "gripper", "image", "wrist"], **kwargs)
    plain = make(name, obs_keys=["state"])
    obs, _ = env.reset(seed=2)
    plain.reset(seed=2)
    expert = env.unwrapped.make_expert(2)
    for _ in range(12):
        assert obs["image"].shape == (64, 64, 3)
        assert obs["wrist"].shape == (48, 48, 3)
        recorded = {"state": obs["state"], "reward": np.float32(0)}
        np.testing.assert_array_equal(env.unwrapped.picture(recorded, 80), env.render())
        again = env.unwrapped.observe(recorded)
        assert again.keys() == obs.keys()
        for key, value in obs.items():
            np.testing.assert_array_equal(again[key], value)
        action = expert(obs, {})
        obs, *_ = env.step(action)
        np.testing.assert_array_equal(plain.step(action)[0]["state"], obs["state"])
    env.close()


@needs_gl
def test_render_works_after_close(name: str) -> None:
    env = make(name, render_mode="rgb_array", render_size=64)
    env.reset(seed=0)
    first = env.render()
    env.unwrapped.close()
    np.testing.assert_array_equal(env.unwrapped.render(), first)


@needs_gl
def test_action_pixels_lie_where_the_gripper_is_drawn(name: str) -> None:
    """The palm is found by drawing it in another colour; its middle is 63 mm above the place that actions mean."""
    env = make(name, obs_keys=["state"]).unwrapped
    state, size = env.reset(seed=0)[0]["state"], 400
    colours = env._pictures.scene.model.geom("palm").rgba
    for target in ([-0.1, 0.1, 0.05], [0.12, -0.1, 0.1], [0.0, 0.0, 0.18]):
        state[:3] = target
        seen = []
        for colour in ([1, 0, 0, 1], [0, 0, 1, 1]):
            colours[:] = colour
            seen.append(env.picture({"state": state}, size).astype(int))
        rows, columns = np.nonzero(np.abs(seen[0] - seen[1]).sum(axis=-1) > 60)
        palm = np.array([columns.mean(), rows.mean()]) + 0.5
        above = [[*target[:2], target[2] + 0.063, 1.0]]
        np.testing.assert_allclose(env.action_pixels(above, size)[0], palm, atol=5)  # it is seen from above


def test_action_pixels_of_points_on_the_middle_line_are_in_the_middle(name: str) -> None:
    env = make(name).unwrapped
    pixels = env.action_pixels([[0.0, y, z, 1.0] for y in (-0.2, 0.0, 0.2) for z in (0.02, 0.2)], 100)
    np.testing.assert_allclose(pixels[:, 0], 50.0, atol=1e-9)
    near, far = pixels[0], pixels[4]
    assert near[1] > far[1]  # what is near stands lower
    left, right = env.action_pixels([[-0.1, 0.0, 0.1, 1.0], [0.1, 0.0, 0.1, 0.0]], 100)
    assert left[0] < 50.0 < right[0]
    assert left[0] + right[0] == pytest.approx(100.0)


def test_without_gl_pictures_are_refused_with_a_hint_and_states_go_on(name: str) -> None:
    code = (
        f"import gymnasium as gym; e = gym.make('diffusion_policy_envs:{name}', render_mode='rgb_array');"
        "e.reset(seed=0); e.step(e.action_space.sample()); print('stepped'); e.render()"
    )
    source = str(Path(diffusion_policy_envs.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": source, "MUJOCO_GL": "disable"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.stdout.split() == ["stepped"]
    assert "RuntimeError: a picture of camera 'front' needs OpenGL" in result.stderr
    assert gl.INSTALL_HINT in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": [1, 2, 3]}, r"options\['state'\] must have shape \(\d+,\)"),
        ({"start": [0] * 5}, r"some of \['state'\], but got \['start'\]"),
    ],
)
def test_bad_reset_options_are_explained(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name).unwrapped.reset(options=options)


def test_bad_states_are_explained(name: str) -> None:
    env = make(name, obs_keys=["state"]).unwrapped
    state = env.reset(seed=0)[0]["state"]
    with pytest.raises(ValueError, match="must hold quaternions of length 1"):
        env.reset(options={"state": 0.0 * state})
    with pytest.raises(ValueError, match="must be finite"):
        env.reset(options={"state": state * np.nan})
    with pytest.raises(ValueError, match="a recorded step must hold state, but it has thing; record it"):
        env.picture({"thing": state}, 64)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([np.nan, 1.0, 0.0, 0.0], "action must be finite"),
        ([1.0], r"action must have shape \(4,\) .* got \(1,\)"),
        ("up", "action must be 4 numbers"),
    ],
)
def test_bad_actions_are_explained(name: str, action: Any, message: str) -> None:
    env = make(name).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs_keys": ["pixels"]}, r"'gripper', .* 'image', 'wrist'\], but got \['pixels'\]"),
        ({"obs_keys": []}, "obs_keys must be a list"),
        ({"control_hz": 30}, "control_hz must be one of .*, but got 30"),
        ({"image_size": 0}, "image_size must be"),
        ({"image_size": {"side": 96}}, r"must name some of \['image', 'wrist'\], but got \['side'\]"),
        ({"render_mode": "human"}, "render_mode must be one of"),
    ],
)
def test_bad_arguments_are_explained(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        type(make(name).unwrapped)(**kwargs)  # Gymnasium's wrappers have opinions of their own
