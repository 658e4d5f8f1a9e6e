"""Detour-v0: determinism, reset options, collisions, rewards, routes, symmetry, bad input."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy_envs.detour.geometry import (
    AGENT_RADIUS,
    BEHAVIORS,
    FINISH_Y,
    HALF_WIDTH,
    LENGTH,
    PILLAR_RADIUS,
    PILLARS,
    ROW_Y,
    gap_at,
    gap_x,
    pillar_x,
    rows_passed,
)
from diffusion_policy_envs.detour.physics import DetourPhysics
from diffusion_policy_envs.detour.route import Route
from diffusion_policy_envs.detour.symmetry import mirror_actions, mirror_behavior, mirror_observations
from diffusion_policy_envs.gl import mujoco

ID = "diffusion_policy_envs:Detour-v0"


def make(**kwargs: Any) -> Any:
    return gym.make(ID, **{"obs_keys": ["state"], **kwargs})


def rollout(env: Any, seed: int) -> tuple[np.ndarray, np.ndarray, list[float], dict[str, Any]]:
    """Returns states (N + 1, 4), actions (N, 2), rewards and the last info of the expert's episode."""
    obs, info = env.reset(seed=seed)
    expert = env.unwrapped.make_expert(seed)
    states, actions, rewards = [obs["state"]], [], []
    ended = False
    while not ended:
        actions.append(expert(obs, info))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        states.append(obs["state"])
        rewards.append(reward)
        ended = terminated or truncated
    return np.array(states), np.array(actions), rewards, info


def walk(route: Route, places: list[tuple[float, float]]) -> str:
    for place in places:
        route.advance(*place)
    return route.letters


def test_model_is_the_geometry() -> None:
    model = DetourPhysics().model
    names = {mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_GEOM, i) or "": i for i in range(model.ngeom)}
    for kind, radius in (("pillar_", PILLAR_RADIUS), ("edge_", PILLAR_RADIUS), ("face_", PILLAR_RADIUS - 0.005)):
        ids = [i for name, i in names.items() if name.startswith(kind)]
        np.testing.assert_allclose(model.geom_pos[ids, :2], PILLARS, atol=1e-12)
        np.testing.assert_allclose(model.geom_size[ids, 0], radius)
    assert model.geom_size[names["agent"], 0] == AGENT_RADIUS
    walls = {name: model.geom_pos[i] for name, i in names.items() if name.startswith("wall")}
    assert (walls["wall_left"][0], walls["wall_right"][0]) == (-HALF_WIDTH, HALF_WIDTH)
    assert (walls["wall_near"][1], walls["wall_far"][1]) == (0.0, LENGTH)
    assert model.geom_pos[names["finish"], 1] == FINISH_Y


def test_every_pillar_stands_in_the_middle_of_the_way_from_a_gap() -> None:
    for row in range(1, 4):
        for gap in range(row + 1):
            assert pillar_x(row, gap) == pytest.approx(gap_x(row - 1, gap))
            assert gap_x(row, gap) + gap_x(row, gap + 1) == pytest.approx(2 * pillar_x(row, gap))
            assert gap_at(row, gap_x(row, gap)) == gap
    np.testing.assert_allclose(np.sort(PILLARS[:, 0]), np.sort(-PILLARS[:, 0]), atol=1e-12)
    assert [rows_passed(y) for y in (0.0, ROW_Y[0] - 1e-9, *ROW_Y)] == [0, 0, 1, 2, 3, 4]


def test_same_seed_gives_the_same_episode_bit_for_bit_also_after_another() -> None:
    env = make()
    first = rollout(env, 3)
    rollout(env, 4)
    for again in (rollout(env, 3), rollout(make(), 3)):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])
        assert first[2:] == again[2:]


def test_starts_lie_within_a_centimetre_at_rest() -> None:
    env = make()
    starts = np.array([env.reset(seed=seed)[0]["state"] for seed in range(100)])
    offset = starts - np.array([0.0, 0.1, 0.0, 0.0])
    assert len(np.unique(starts, axis=0)) == 100
    assert np.abs(offset[:, :2]).max() <= 0.01 + 1e-6
    assert np.abs(offset[:, :2]).min(axis=0).max() < 0.002 < 0.008 < np.abs(offset[:, :2]).max(axis=0).min()
    assert not offset[:, 2:].any()


def test_reset_to_a_state_goes_on_bit_for_bit_as_the_episode_did() -> None:
    _, actions, _, _ = rollout(make(), 5)
    env, twin = make(), make()
    env.reset(seed=5)
    for step, action in enumerate(actions):
        if step % 10 == 0:
            state = env.unwrapped.physics.state
            obs, _ = twin.reset(options={"state": state})
            np.testing.assert_array_equal(obs["state"], np.float32(state))
        seen, told = env.step(action), twin.step(action)
        np.testing.assert_array_equal(env.unwrapped.physics.state, twin.unwrapped.physics.state)
        assert (seen[1:4], seen[4]["is_success"]) == (told[1:4], told[4]["is_success"])


def test_drawing_does_not_change_the_episode() -> None:
    plain, drawn = make(), make(obs_keys=["state", "image"], renderer="draw2d", image_size=8)
    np.testing.assert_array_equal(rollout(plain, 2)[0], rollout(drawn, 2)[0])


def test_driving_straight_up_hits_the_first_pillar() -> None:
    env = make()
    for seed in range(10):
        obs, _ = env.reset(seed=seed)
        terminated, rewards = False, []
        while not terminated:
            x, y = obs["state"][:2]
            obs, reward, terminated, truncated, info = env.step(np.float32([x, y + 0.04]))
            rewards.append(reward)
            assert not truncated
        assert info["collided"]
        assert not info["is_success"]
        gap = np.linalg.norm(obs["state"][:2] - PILLARS[0]) - AGENT_RADIUS - PILLAR_RADIUS
        assert -0.005 < gap < 0.0
        assert 0.0 < max(rewards) < 0.3


@pytest.mark.parametrize("aside", [0.0, 0.02, -0.04])
def test_collision_is_reported_in_the_physics_step_in_which_the_discs_meet(aside: float) -> None:
    env = make(control_hz=100)
    env.reset(options={"state": [aside, 0.2, 0.0, 0.0]})
    collided, steps = False, 0
    while not collided:
        steps += 1
        assert steps < 1000
        *_, collided, _, info = env.step(np.float32([aside, 0.4]))
        distance = np.linalg.norm(env.unwrapped.physics.state[:2] - PILLARS[0])
        assert info["collided"] == (distance < AGENT_RADIUS + PILLAR_RADIUS)


def test_the_mean_of_ways_left_and_right_hits_the_first_pillar() -> None:
    env = make()
    ways = {}
    for seed in range(8):
        _, actions, _, info = rollout(env, seed)
        ways.setdefault(info["behavior"][0], actions[:30])
    env.reset(seed=0)
    for action in (ways["L"] + ways["R"]) / 2:
        *_, terminated, _, info = env.step(action)
        if terminated:
            break
    assert info["collided"]


@pytest.mark.parametrize("target", [[-0.5, 0.1], [0.5, 0.1], [0.0, 0.0], [9.0, -9.0]])
def test_walls_end_the_episode_without_success(target: list[float]) -> None:
    env = make()
    env.reset(seed=0)
    for _ in range(30):
        obs, reward, terminated, _, info = env.step(np.float32(target))
        assert env.observation_space.contains(obs)
        if terminated:
            break
    assert info["collided"]
    assert not info["is_success"]
    assert reward == pytest.approx(info["progress"])


def test_far_wall_is_reached_only_over_the_finish_line() -> None:
    env = make()
    env.reset(options={"state": [0.0, 1.05, 0.0, 6.0]})  # faster than the table is long
    obs, reward, terminated, _, info = env.step(np.float32([0.0, 1.2]))
    assert (reward, terminated, info["is_success"], info["collided"]) == (1.0, True, True, False)
    assert obs["state"][1] >= FINISH_Y


def test_reward_is_the_share_of_the_way_and_one_only_at_the_finish() -> None:
    states, _, rewards, info = rollout(make(), 0)
    np.testing.assert_allclose(rewards[:-1], np.clip(states[1:-1, 1] - 0.1, 0.0, 0.99), atol=1e-6)
    assert info["is_success"]
    assert rewards[-1] == 1.0
    assert max(rewards[:-1]) <= 0.99


def test_route_tells_on_which_side_of_the_pillar_in_its_way_the_agent_passed() -> None:
    def places(*gaps: int) -> list[tuple[float, float]]:
        return [(gap_x(row, gap), ROW_Y[row] + 0.01) for row, gap in enumerate(gaps)]

    assert walk(Route(0.0, 0.1), places(0, 1, 1, 2)) == "LRLR"
    assert walk(Route(0.0, 0.1), places(1, 2, 3, 4)) == "RRRR"
    wide = Route(0.0, 0.1)  # from the first gap far to the right, past a pillar that was never in its way
    assert walk(wide, places(0, 2, 2, 3)) == wide.behavior == "LRLR"


def test_route_takes_a_letter_back_from_an_agent_that_turns_back() -> None:
    route = Route(0.0, 0.1)
    assert walk(route, [(-0.1, 0.35), (-0.1, 0.33)]) == ""
    assert walk(route, [(0.1, 0.33), (0.1, 0.35)]) == "R"
    assert route.behavior == ""


def test_behavior_stays_empty_where_the_beginning_is_unknown() -> None:
    env = make()
    state = [gap_x(1, 1), 0.56, 0.0, 0.0]
    assert env.reset(options={"state": state})[1]["route"] == "??"
    assert env.reset(options={"state": state, "route": "RL"})[1]["route"] == "RL"
    obs, info = env.reset(options={"state": [gap_x(3, 0), 1.0, 0.0, 0.0]})
    expert = env.unwrapped.make_expert(0)
    truncated = False
    while not (info["is_success"] or truncated):
        obs, _, _, truncated, info = env.step(expert(obs, info))
    assert (info["route"], info["behavior"]) == ("????", "")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0.01, 0.1), (-0.01, ROW_Y[0] - 0.1)),  # the only one of the first row
        ((-0.1, 0.4), (-0.005, ROW_Y[1] - 0.4)),  # the left one of the second
        ((0.1, 0.5), (0.005, ROW_Y[1] - 0.5)),  # the right one
        ((0.3, 1.0), (0.0, FINISH_Y - 1.0)),  # behind all rows, the finish line
    ],
)
def test_pillar_is_the_way_to_the_nearest_one_of_the_next_row(place, expected) -> None:
    env = make(obs_keys=["pillar"])
    obs, _ = env.reset(options={"state": [*place, 0.0, 0.0]})
    np.testing.assert_allclose(obs["pillar"], expected, atol=1e-6)
    mirrored, _ = env.reset(options={"state": [-place[0], place[1], 0.0, 0.0]})
    np.testing.assert_allclose(env.unwrapped.mirror(obs, np.zeros((1, 2)))[0]["pillar"], mirrored["pillar"], atol=1e-6)


def test_mirrored_episodes_lead_to_mirrored_states_on_mirrored_routes() -> None:
    env = make()
    for seed in range(4):
        states, actions, _, info = rollout(env, seed)
        mirrored_obs, mirrored_actions = env.unwrapped.mirror({"state": states}, actions)
        env.reset(options={"state": mirrored_obs["state"][0]})
        for expected, action in zip(mirrored_obs["state"][1:], mirrored_actions, strict=True):
            obs, _, terminated, _, mirrored = env.step(action)
            np.testing.assert_allclose(obs["state"], expected, atol=1e-6)
        assert terminated
        assert mirrored["is_success"]
        assert mirrored["behavior"] == mirror_behavior(info["behavior"]) != info["behavior"]


def test_the_mirror_of_the_mirror_is_the_original() -> None:
    rng = np.random.default_rng(0)
    obs = {"state": rng.normal(size=(20, 4)), "agent_pos": rng.normal(size=(20, 2)).astype(np.float32)}
    obs["pillar"] = rng.normal(size=(20, 2)).astype(np.float32)
    obs["image"] = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    for key, values in mirror_observations(mirror_observations(obs)).items():
        np.testing.assert_array_equal(values, obs[key])
        assert values.dtype == obs[key].dtype
    np.testing.assert_array_equal(mirror_actions(mirror_actions(obs["agent_pos"])), obs["agent_pos"])
    assert sorted(map(mirror_behavior, BEHAVIORS)) == list(BEHAVIORS)


@pytest.mark.parametrize("control_hz", [5, 20, 100])
def test_control_hz_changes_only_how_often_actions_are_taken(control_hz: int) -> None:
    env, reference = make(control_hz=control_hz), make()
    for one, steps in ((env, control_hz), (reference, 10)):
        one.reset(options={"state": [0.0, 0.1, 0.0, 0.0]})
        for _ in range(steps):
            obs, *_ = one.step(np.float32([0.2, 0.2]))
    np.testing.assert_array_equal(obs["state"], env.unwrapped.physics.state.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": [1, 2]}, r"options\['state'\] must have shape \(4,\)"),
        ({"state": [51.2, 0.1, 0, 0]}, r"must have x in \[-0.5, 0.5\] m and y in \[0, 1.2\] m, .* scale them"),
        ({"state": [0.0, 0.1, 0, 99.0]}, "speeds up to 10"),
        ({"state": [0.0, 0.1, 0, 0], "route": "L"}, r"must be 0 letters L and R that lead to .* but got 'L'"),
        ({"state": [0.0, 0.56, 0, 0], "route": "RR"}, r"must be 2 letters L and R that lead to"),
        ({"agent_velocity": [1.0]}, r"some of \['state', 'route'\], but got \['agent_velocity'\]"),
    ],
)
def test_bad_reset_options_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().unwrapped.reset(options=options)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs_keys": ["keypoints"]}, r"some of \['agent_pos', 'pillar', 'state', 'image'\], but got \['keypoints'\]"),
        ({"control_hz": 30}, "control_hz must be one of"),
        ({"image_size": 0}, "image_size must be"),
        ({"renderer": "gl"}, "renderer must be one of"),
    ],
)
def test_bad_arguments_are_explained(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)
