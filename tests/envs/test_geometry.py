"""Shapes of Push-T: poses, coverage, the signed angle round the block."""

import numpy as np
import pytest
import shapely

from diffusion_policy_envs.pusht.geometry import (
    BLOCK_AREA,
    BLOCK_OUTLINE,
    CENTER_OF_MASS,
    GOAL_POSE,
    KEYPOINTS,
    angle_round_block,
    block_points,
    coverage,
    wrap_angle,
)


def test_coverage_is_one_on_the_goal_and_zero_far_away() -> None:
    assert coverage(GOAL_POSE) == pytest.approx(1.0, abs=1e-12)
    assert coverage([20.0, 480.0, 0.0]) == 0.0


def test_coverage_equals_the_intersection_of_two_boxes() -> None:
    bar, stem = (
        np.array([[-60, 0], [60, 0], [60, 30], [-60, 30]]),
        np.array([[-15, 30], [15, 30], [15, 120], [-15, 120]]),
    )

    def union(pose: np.ndarray) -> shapely.Geometry:
        return shapely.union_all([shapely.Polygon(block_points(box, pose)) for box in (bar, stem)])

    poses = GOAL_POSE + np.random.default_rng(0).normal(size=(200, 3)) * [30.0, 30.0, 1.0]
    expected = [union(GOAL_POSE).intersection(union(pose)).area / BLOCK_AREA for pose in poses]
    np.testing.assert_allclose(coverage(poses), expected, atol=1e-9)


def test_coverage_of_many_poses_equals_one_at_a_time() -> None:
    poses = GOAL_POSE + np.random.default_rng(1).normal(size=(5, 4, 3)) * [20.0, 20.0, 1.0]
    single = np.array([[coverage(pose) for pose in row] for row in poses])
    np.testing.assert_array_equal(coverage(poses), single)


def test_block_points_keep_distances() -> None:
    moved = block_points(BLOCK_OUTLINE, [100.0, 200.0, 2.3])
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(moved, axis=0), axis=1), np.linalg.norm(np.diff(BLOCK_OUTLINE, axis=0), axis=1)
    )
    assert shapely.Polygon(moved).area == pytest.approx(BLOCK_AREA)


def test_keypoints_equal_the_recorded_ones(human_episodes: list[dict[str, np.ndarray]]) -> None:
    state = np.concatenate([episode["state"] for episode in human_episodes])
    recorded = np.concatenate([episode["keypoint"] for episode in human_episodes])
    error = np.linalg.norm(block_points(KEYPOINTS, state[:, 2:]) - recorded, axis=-1)
    # The recordings' own noise: a few frames in a thousand lag behind their state by up to 2 px.
    assert np.median(error) < 0.01
    assert np.mean(error.max(axis=1) < 0.1) > 0.99


def test_wrap_angle_stays_within_half_a_turn() -> None:
    angles = np.linspace(-20.0, 20.0, 1001)
    wrapped = wrap_angle(angles)
    assert np.all((wrapped >= -np.pi) & (wrapped < np.pi))
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-12)


@pytest.mark.parametrize("turns", [-1.75, -0.3, 0.0, 0.6, 1.25])
def test_angle_round_block_counts_turns_with_their_sign(turns: float) -> None:
    bearing = np.linspace(0.0, turns * 2 * np.pi, 60)
    block = np.tile([250.0, 260.0, 0.8], (60, 1))
    center = block_points(CENTER_OF_MASS[None], block)[:, 0]
    agent = center + 120.0 * np.stack([np.cos(bearing), np.sin(bearing)], axis=-1)
    states = np.concatenate([agent, block], axis=-1)
    assert angle_round_block(states) == pytest.approx(turns * 2 * np.pi)
    assert angle_round_block(states[::-1]) == pytest.approx(-turns * 2 * np.pi)
