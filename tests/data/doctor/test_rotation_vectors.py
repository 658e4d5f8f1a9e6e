"""Rotation vectors that turn over are found, and what only looks like one is not."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.data.survey import survey
from tests.data.doctor.arm import Demos, demonstrations, stored


def swaying(demos: Demos, axis: tuple[float, float, float], middle: float = np.pi) -> Demos:
    """A hand that sways by 9 degrees about a turn, as a rotation vector behind two other numbers."""
    for i, episode in enumerate(demos):
        angle = middle + 0.15 * np.sin(0.3 * np.arange(len(episode["action"])) + i)
        vector = Rotation.from_rotvec(angle[:, None] * np.array(axis) / np.linalg.norm(axis)).as_rotvec()
        before = 0.01 * np.random.default_rng(i).normal(size=(len(vector), 2)).cumsum(axis=0)
        episode["pose"] = np.concatenate([before, vector], axis=1).astype(np.float32)
    return demos


def found_in(demos: Demos) -> list[tuple[str, tuple[int, ...], str]]:
    return [(e.key, e.dims, e.severity) for e in survey(stored(demos)).findings if e.name == "rotation-vectors"]


@pytest.mark.parametrize("axis", [(1, 1, 0), (1, 0.1, 0.05), (0.2, -0.5, 0.7)])
def test_a_vector_that_turns_over_at_half_a_turn_is_found_where_it_lies(axis) -> None:
    demos = swaying(demonstrations(3), axis)
    assert found_in(demos) == [("pose", (2, 3, 4), "warning")]
    (finding,) = [each for each in survey(stored(demos)).findings if each.name == "rotation-vectors"]
    jumps = sum(int((np.linalg.norm(np.diff(each["pose"][:, 2:], axis=0), axis=1) > 5.6).sum()) for each in demos)
    assert f"pose[2:5], a rotation vector, turns over at {jumps} steps" in finding.what


def test_a_vector_that_stays_below_half_a_turn_is_none() -> None:
    assert found_in(swaying(demonstrations(3), (1, 1, 0), middle=2.5)) == []


def test_an_angle_that_wraps_beside_two_small_numbers_is_an_angle() -> None:
    demos = demonstrations(3)
    for episode in demos:
        steps = len(episode["action"])
        yaw = (np.pi + 0.2 * np.sin(0.3 * np.arange(steps)) + np.pi) % (2 * np.pi) - np.pi
        place = 0.05 + 0.01 * np.random.default_rng(0).normal(size=(steps, 2)).cumsum(axis=0)
        episode["base"] = np.column_stack([place, yaw]).astype(np.float32)
    assert found_in(demos) == []
    wraps = [each for each in survey(stored(demos)).findings if each.name == "wraps"]
    assert [(each.key, each.dims) for each in wraps] == [("base", (2,))]


def test_fast_motion_of_larger_numbers_is_none() -> None:
    demos = demonstrations(3)
    for i, episode in enumerate(demos):
        episode["point"] = np.random.default_rng(i).uniform(-4, 4, (len(episode["action"]), 3)).astype(np.float32)
    assert found_in(demos) == []
