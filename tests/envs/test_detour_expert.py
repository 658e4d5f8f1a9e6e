"""The expert of Detour: all routes, safely, and none betrayed before its time."""

import collections
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy_envs.detour.geometry import AGENT_RADIUS, BEHAVIORS, PILLAR_RADIUS, PILLARS, ROW_Y, gap_x
from diffusion_policy_envs.experts.detour_path import SPLIT, DetourPath, corners

ID = "diffusion_policy_envs:Detour-v0"
Episode = tuple[np.ndarray, np.ndarray, dict[str, Any]]


def episodes(seeds: range, **kwargs: Any) -> list[Episode]:
    """Returns states (N, 4), actions (N, 2) and the last info of the expert's episodes."""
    env = gym.make(ID, obs_keys=["state"], max_episode_steps=kwargs.get("control_hz", 10) * 15, **kwargs)
    made = []
    for seed in seeds:
        obs, info = env.reset(seed=seed)
        expert = env.unwrapped.make_expert(seed)
        states, actions, ended = [], [], False
        while not ended:
            states.append(obs["state"])
            actions.append(expert(obs, info))
            obs, _, terminated, truncated, info = env.step(actions[-1])
            ended = terminated or truncated
        made.append((np.array(states), np.array(actions), info))
    return made


@pytest.fixture(scope="module")
def many() -> list[Episode]:
    return episodes(range(120))


def test_expert_always_arrives_within_its_time(many: list[Episode]) -> None:
    assert all(info["is_success"] for _, _, info in many)
    assert 50 <= min(len(states) for states, *_ in many) <= max(len(states) for states, *_ in many) <= 90


def test_expert_takes_each_of_the_sixteen_routes(many: list[Episode]) -> None:
    taken = collections.Counter(info["behavior"] for *_, info in many)
    assert sorted(taken) == sorted(BEHAVIORS)
    assert gym.make(ID).unwrapped.behaviors == BEHAVIORS


def test_expert_takes_the_route_that_it_means() -> None:
    env = gym.make(ID).unwrapped
    env.reset(seed=0)
    meant = [env.make_expert(seed).route for seed in range(20)]
    assert [info["behavior"] for *_, info in episodes(range(20))] == meant


def test_expert_stays_clear_of_pillars_by_more_than_a_centimetre(many: list[Episode]) -> None:
    for states, *_ in many:
        distance = np.linalg.norm(states[:, None, :2] - PILLARS, axis=-1).min()
        assert distance - AGENT_RADIUS - PILLAR_RADIUS > 0.01


def test_expert_moves_smoothly_without_pauses(many: list[Episode]) -> None:
    for states, actions, _ in many:
        assert actions.dtype == np.float32
        speed = np.linalg.norm(states[5:, 2:], axis=1)  # after the start from rest
        assert 0.04 < speed.min() < speed.max() < 0.3
        assert np.linalg.norm(np.diff(actions, axis=0), axis=1).max() < 0.06


def test_nothing_betrays_the_route_before_the_ways_part(many: list[Episode]) -> None:
    """Neither the start, drawn from the same seed, nor the place at which ways are still the same."""
    before = np.array([states[np.argmax(states[:, 1] > ROW_Y[0] - SPLIT - 0.05), 0] for states, *_ in many])
    start = np.array([states[0, 0] for states, *_ in many])
    right = np.array([info["behavior"][0] == "R" for *_, info in many])
    for x in (start, before):
        assert abs(x[right].mean() - x[~right].mean()) < 0.003
    after = np.array([states[np.argmax(states[:, 1] > ROW_Y[0]), 0] for states, *_ in many])
    assert after[right].min() > 0.05 > -0.05 > after[~right].max()


def test_ways_through_a_gap_are_the_same_until_they_part() -> None:
    start = np.array([0.004, 0.095])
    left, right = (DetourPath(corners(start, route)).points for route in ("LRLL", "LRRL"))
    height = ROW_Y[2] - SPLIT - 0.03
    shared = int(np.argmax(left[:, 1] > height))
    np.testing.assert_array_equal(left[:shared], right[:shared])
    assert np.abs(left[shared + 50, 0] - right[shared + 50, 0]) > 0.1


def test_all_ways_are_equally_long() -> None:
    lengths = [len(DetourPath(corners(np.array([0.0, 0.1]), route)).points) for route in BEHAVIORS]
    assert max(lengths) - min(lengths) <= 1


def test_expert_with_the_same_seed_does_the_same() -> None:
    (first,), (second,) = episodes(range(7, 8)), episodes(range(7, 8))
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize("control_hz", [5, 50])
def test_expert_arrives_at_other_rates_in_about_the_same_time(control_hz: int) -> None:
    for states, _, info in episodes(range(10), control_hz=control_hz):
        assert info["is_success"]
        assert 5.0 < len(states) / control_hz < 10.0


@pytest.mark.parametrize("state", [(0.05, 0.3), (gap_x(2, 3), 0.76), (-0.3, 0.5), (0.0, 1.05), (0.12, 0.42)])
def test_expert_finds_the_way_from_other_places(state: tuple[float, float]) -> None:
    env = gym.make(ID)
    for seed in range(8):
        obs, info = env.reset(options={"state": [*state, 0.0, 0.0]})
        assert not info["collided"], "the place is within a pillar"
        expert = env.unwrapped.make_expert(seed)
        truncated = False
        while not (info["is_success"] or info["collided"] or truncated):
            obs, _, _, truncated, info = env.step(expert(obs, info))
        assert info["is_success"], (seed, info)


@pytest.mark.slow
def test_expert_never_fails_and_takes_all_routes_alike() -> None:
    infos = [info for *_, info in episodes(range(500))]
    assert all(info["is_success"] for info in infos)
    shares = np.array(list(collections.Counter(info["behavior"] for info in infos).values())) / len(infos)
    assert -np.sum(shares * np.log(shares)) / math.log(16) >= 0.98
