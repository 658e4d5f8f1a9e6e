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
    assert (found.problems, found.notes) == ((), ())
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
    interrupted, constant, outlying = found.notes
    assert "10 steps behind the last whole episode" in interrupted
    assert "dimension 1 never changes" in constant
    assert "dimension 2 reaches far outside" in outlying
