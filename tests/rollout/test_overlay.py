"""Sampled chunks on films: where the policy might go, without changing where it goes."""

import numpy as np
import pytest

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.overlay import ChunkOverlay, make_overlay
from diffusion_policy.film.picture import Picture
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.environments import make_env
from diffusion_policy.rollout.evaluate import evaluate

CHAOS = "toys/Chaos-v0"


def across(actions, size):
    """Actions in [-1, 1] over the whole picture."""
    return (np.asarray(actions) + 1) * size / 2


def films(policy, overlay):
    grid = VideoGrid(2, tile=64, overlay=overlay)
    result = evaluate(policy, CHAOS, episodes=3, seed=5, num_envs=2, film=grid, progress=False)
    return result, list(grid.frames())


def test_overlay_changes_the_film_and_not_the_episodes(toy_policy):
    plain, without = films(toy_policy(), None)
    marked, frames = films(toy_policy(), ChunkOverlay(toy_policy(), across, samples=3))
    assert [each.to_dict() for each in marked.per_episode] == [each.to_dict() for each in plain.per_episode]
    differs = [not np.array_equal(a, b) for a, b in zip(without, frames, strict=True)]
    assert not differs[0]  # nothing was predicted before the first frame
    assert all(differs[1:20])


def test_overlay_draws_what_is_left_of_each_sample(toy_policy):
    seen = []

    def recorded(actions, size):
        seen.append(np.array(actions))
        return across(actions, size)

    policy = toy_policy()
    overlay = ChunkOverlay(policy, recorded, samples=3)
    picture = Picture.of(np.full((32, 32, 3), 200, np.uint8), 32)
    assert overlay.marked(0, picture) is picture  # nothing predicted yet
    window = {key: np.full((2, *field.shape), 0.5, np.float32) for key, field in policy.obs_spec.items()}
    overlay.predict(0, window, seed=7)
    overlay.marked(0, picture)
    first = np.array(seen[:3])  # (K, what is left, Da)
    assert first.shape == (3, policy.horizons.pred_horizon - policy.horizons.obs_horizon, 2)
    overlay.marked(0, picture)
    np.testing.assert_array_equal(seen[3:], first[:, 1:])
    assert not np.array_equal(first[0], first[1])  # each from its own noise
    overlay.forget(0)
    assert overlay.marked(0, picture) is picture


def test_overlay_needs_to_know_where_actions_lie(toy_policy):
    env = make_env(CHAOS)
    with pytest.raises(ConfigError, match=r"overlay=true .* action_pixels\(actions, size\) of toys/Chaos-v0's"):
        make_overlay(toy_policy(), env, CHAOS)
    push = make_env("diffusion_policy_envs:PushT-v0")
    assert isinstance(make_overlay(toy_policy(), push, "PushT"), ChunkOverlay)
    with pytest.raises(ConfigError, match="samples >= 1"):
        ChunkOverlay(toy_policy(), across, samples=0)


def test_evaluate_takes_a_policy_as_well_as_a_controller(toy_policy):
    settings = {"episodes": 2, "seed": 3, "progress": False}
    alone = evaluate(toy_policy(), CHAOS, **settings)
    with_controller = evaluate(RecedingHorizonController(toy_policy()), CHAOS, **settings)
    assert [each.to_dict() for each in alone.per_episode] == [each.to_dict() for each in with_controller.per_episode]
