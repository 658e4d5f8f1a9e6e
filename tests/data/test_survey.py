"""Surveys find what was planted and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.data.survey import survey


@pytest.fixture
def place(tmp_path: Path, make_episode) -> Path:
    made = ReplayBuffer.create(tmp_path / "demos.zarr")
    for seed in range(6):
        made.add_episode(make_episode(30, seed))
    return tmp_path / "demos.zarr"


def test_survey_of_sound_data_equals_numpy(place: Path) -> None:
    buffer = ReplayBuffer.open(place)
    done: list[int] = []
    found = survey(buffer, on_episode=done.append)
    assert found.findings == ()
    assert found.digest == buffer.digest()
    assert sum(done) == buffer.num_steps
    for key, each in found.keys.items():
        rows = buffer[key].reshape(buffer.num_steps, -1)
        np.testing.assert_array_equal(each.low, rows.min(axis=0))
        np.testing.assert_array_equal(each.high, rows.max(axis=0))
        assert each.mean == pytest.approx(rows.mean(dtype=np.float64), abs=1e-9)


def test_survey_finds_numbers_that_are_not_finite(place: Path) -> None:
    zarr.open_group(place, mode="r+")["data/action"][[35, 36], [0, 1]] = [np.nan, np.inf]
    found = survey(ReplayBuffer.open(place), ["action"])
    assert found.problems == ("action: 2 numbers are NaN or infinite, first at step 5 of episode 1",)
    assert np.isfinite([found.keys["action"].mean, *found.keys["action"].low, *found.keys["action"].high]).all()


def test_survey_finds_an_altered_episode(place: Path) -> None:
    zarr.open_group(place, mode="r+")["data/state"][65, 0] = 5.0
    assert any("episode 2 is not what was written" in each for each in survey(ReplayBuffer.open(place)).problems)


def test_survey_finds_duplicates(place: Path, make_episode) -> None:
    ReplayBuffer.open(place, "a").add_episode(make_episode(30, 4))
    (problem,) = survey(ReplayBuffer.open(place)).problems
    assert problem.startswith("episodes 4, 6 are the same")


def test_survey_notes_constants_outliers_and_interrupted_appends(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create(tmp_path / "odd.zarr")
    values = np.random.default_rng(0).normal(size=(500, 3))
    values[:, 1] = 4.0
    values[77, 2] = 1e6
    buffer.add_episode({"state": values})
    zarr.open_group(tmp_path / "odd.zarr", mode="r+")["data/state"].resize((510, 3))
    found = survey(ReplayBuffer.open(tmp_path / "odd.zarr"))
    assert found.problems == ()
    interrupted, constant = found.notes
    (outlying,) = found.warnings
    assert "10 steps behind the last whole episode" in interrupted
    assert "dimension 1 never changes" in constant
    assert "dimension 2 reaches far outside" in outlying


def transitions(lengths: list[int], terminated: list[bool], *, with_next: bool = False) -> ReplayBuffer:
    """Returns episodes of a counter, that many steps each, terminated or truncated."""
    buffer, first = ReplayBuffer.create(), 0
    for length, ended in zip(lengths, terminated, strict=True):
        count = np.arange(first, first + length + 1, dtype=np.float32)[:, None]
        last = np.arange(length) == length - 1
        first += length + 7
        episode = {"observation": count[:-1], "action": np.cos(count[:-1]), "reward": np.sin(count[:-1, 0])}
        episode |= {"terminated": last & ended, "truncated": last & (not ended)}
        buffer.add_episode(episode | ({"next_observation": count[1:]} if with_next else {}))
    return buffer


def test_survey_names_a_time_limit_that_was_stored_as_termination() -> None:
    (problem,) = survey(transitions([20, 20, 20, 7], [True, True, True, False])).problems
    assert "every terminated episode has 20 steps" in problem
    assert "(detected: constant-length terminals)" in problem
    assert survey(transitions([20, 19, 20, 7], [True, True, True, False])).problems == ()
    assert survey(transitions([20, 20, 20, 7], [False, False, False, True])).problems == ()
    assert survey(transitions([20, 20, 20], [True] * 3), ["action"]).problems == ()


def test_survey_finds_an_end_inside_an_episode() -> None:
    buffer = transitions([9, 12, 5], [True, False, False])
    episode = buffer.get_episode(1)
    episode["truncated"][3] = True
    buffer.add_episode(episode)
    (problem,) = [each for each in survey(buffer).problems if "same" not in each]
    assert problem.startswith("truncated: 1 steps say that their episode ends there")


def test_survey_finds_rewards_that_are_not_numbers(tmp_path: Path, make_episode) -> None:
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr")
    buffer.add_episode(make_episode(5) | {"reward": np.ones(5, np.float32)})
    zarr.open_group(tmp_path / "demos.zarr", mode="r+")["data/reward"][2] = np.nan
    problems = survey(ReplayBuffer.open(tmp_path / "demos.zarr")).problems
    assert "reward: 1 numbers are NaN or infinite, first at step 2 of episode 0" in problems


def test_survey_finds_actions_outside_their_bounds() -> None:
    buffer = transitions([9, 12, 5], [True, False, False])  # cosines
    assert survey(buffer, action_bounds=[[-1.0], [1.0]]).problems == ()
    (problem,) = survey(buffer, action_bounds=[[-0.5], [1.0]]).problems
    assert "1 of 1 numbers lie outside their bounds, e.g. number 0 in [-1, 1], bounds [-0.5, 1]" in problem
    (problem,) = survey(buffer, action_bounds=[[-1.0, -1.0], [1.0, 1.0]]).problems
    assert problem == "action: has 1 numbers, but the environment takes 2"


def test_survey_compares_next_observations_with_the_next_rows() -> None:
    assert survey(transitions([9, 12, 5], [True, False, False], with_next=True)).problems == ()
    stitched = transitions([9], [False], with_next=True)
    first, second = stitched.get_episode(0), transitions([9, 12], [False, False], with_next=True).get_episode(1)
    joined = {key: np.concatenate([first[key], second[key]]) for key in first}
    joined["truncated"][8] = False
    stitched.add_episode(joined)
    (problem,) = survey(stitched).problems
    assert problem.startswith("next_observation: 1 steps tell of something else than the following step shows")
