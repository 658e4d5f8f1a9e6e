"""Pictures of Detour: both renderers, recorded steps, places as actions and actions as places."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy_envs import gl
from diffusion_policy_envs.detour.geometry import FINISH_Y, PILLARS

ID = "diffusion_policy_envs:Detour-v0"
STATE = np.array([-0.2, 0.62, 0.0, 0.0])
SIZE = 128
RENDERERS = ["draw2d", pytest.param("mujoco", marks=pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL"))]


def make(renderer: str | None = None, **kwargs: Any) -> Any:
    return gym.make(ID, renderer=renderer, render_mode="rgb_array", render_size=SIZE, **kwargs).unwrapped


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("size", [96, 512])
def test_pictures_show_agent_pillars_and_finish_line_where_they_are(renderer: str, size: int) -> None:
    env = make(renderer, obs_keys=["image"], image_size=size)
    image = env.reset(options={"state": STATE})[0]["image"]
    assert (image.shape, image.dtype, env.renderer) == ((size, size, 3), np.uint8, renderer)

    def at(x: float, y: float) -> list[int]:
        column, row = env.action_pixels([[x, y]], size)[0]
        return image[int(row), int(column)].tolist()

    assert at(*STATE[:2]) == pytest.approx([78, 126, 255], abs=4)
    for pillar in PILLARS:
        assert at(*pillar) == pytest.approx([143, 163, 184], abs=4)
    assert at(0.3, FINISH_Y) == pytest.approx([144, 238, 144], abs=12)  # hardly wider than a pixel
    assert at(0.3, 0.3) == pytest.approx([255, 255, 255], abs=4)
    env.close()


@pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL")
def test_both_renderers_draw_nearly_the_same() -> None:
    one, other = (make(renderer).picture({"state": STATE}, 512) for renderer in ("mujoco", "draw2d"))
    assert np.mean(np.abs(one.astype(int) - other)) < 0.3


@pytest.mark.parametrize("renderer", RENDERERS)
def test_picture_of_a_recorded_step_is_what_was_rendered_then(renderer: str) -> None:
    env = make(renderer, obs_keys=["state", "agent_pos", "image"])
    obs, _ = env.reset(seed=1)
    for target in ([0.1, 0.2], [0.2, 0.25]):
        then = env.render()
        np.testing.assert_array_equal(env.picture({"state": obs["state"]}, SIZE), then)
        np.testing.assert_array_equal(env.picture({"agent_pos": obs["agent_pos"]}, SIZE), then)
        again = env.observe({"state": obs["state"], "reward": 1.0})
        for key, value in obs.items():
            np.testing.assert_array_equal(again[key], value)
        np.testing.assert_array_equal(env.render(), then)
        obs, *_ = env.step(np.float32(target))
    env.close()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_mirrored_pictures_show_mirrored_states(renderer: str) -> None:
    env = make(renderer, obs_keys=["image"])
    state = np.array([[-0.17, 0.62, 0.1, 0.2]])
    mirrored, _ = env.mirror({"state": state}, np.zeros((1, 2)))
    seen, other = (env.observe({"state": one})["image"] for one in (state[0], mirrored["state"][0]))
    turned = env.mirror({"image": seen[None]}, np.zeros((1, 2)))[0]["image"][0]
    error = np.abs(turned.astype(int) - other).mean()
    assert error < 0.2 * np.abs(seen.astype(int) - other).mean()  # edges fall between pixels
    env.close()


def test_action_pixels_lie_where_the_agent_is_drawn() -> None:
    env = make("draw2d")
    for state in (STATE, [0.3, 0.2, 0.0, 0.0]):
        picture = env.picture({"state": state}, SIZE).astype(int)
        rows, columns = np.nonzero((picture[..., 2] > 200) & (picture[..., 0] < 150))
        drawn = np.array([columns.mean(), rows.mean()]) + 0.5
        np.testing.assert_allclose(env.action_pixels([state[:2]], SIZE)[0], drawn, atol=0.3)  # it is 5 px wide


def test_action_at_pixel_is_the_inverse_of_action_pixels() -> None:
    env = make("draw2d")
    actions = np.random.default_rng(0).uniform([-0.5, 0.0], [0.5, 1.2], (50, 2))
    for action, place in zip(actions, env.action_pixels(actions, 300), strict=True):
        np.testing.assert_allclose(env.action_at_pixel(place, 300), action, atol=1e-6)
    beyond = env.action_at_pixel([-20.0, 310.0], 300)
    np.testing.assert_array_equal(beyond, np.float32([-0.5, 0.0]))
    assert env.action_space.contains(beyond)


def test_resting_action_leaves_the_agent_where_it_is() -> None:
    env = make("draw2d")
    env.reset(options={"state": STATE})
    for _ in range(5):
        obs, *_ = env.step(env.resting_action())
    np.testing.assert_allclose(obs["agent_pos"], STATE[:2], atol=1e-6)


def test_steps_that_do_not_say_where_the_agent_was_are_explained() -> None:
    with pytest.raises(ValueError, match=r"must hold state or agent_pos, but it has keypoints; record"):
        make("draw2d").picture({"keypoints": np.zeros(2)}, SIZE)
    with pytest.raises(ValueError, match=r"a recorded state must have shape \(4,\)"):
        make("draw2d").picture({"state": np.zeros((1, 4))}, SIZE)
    with pytest.raises(ValueError, match="must hold state, but it has agent_pos"):
        make("draw2d", obs_keys=["state"]).observe({"agent_pos": np.zeros(2)})
