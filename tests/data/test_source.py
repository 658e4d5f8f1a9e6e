"""How fields find their numbers in a data set."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy import ReplayBuffer
from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.data.source import Source, obs_source, read_action, read_obs, shadowed
from diffusion_policy.errors import ConfigError, DataError


@pytest.fixture
def buffer() -> ReplayBuffer:
    made = ReplayBuffer.create()
    for i in range(4):
        steps = np.arange(3 + i, dtype=np.float32)
        made.add_episode(
            {
                "state": 100 * i + steps[:, None] + np.arange(5) / 10,
                "keypoint": np.repeat(steps[:, None], 18, axis=1),
                "arm": steps[:, None] * np.ones(3),
                "gripper": steps.astype(np.int64),
                "img": np.tile((steps * 10)[:, None, None, None], (1, 8, 8, 3)),
            }
        )
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state", Source("state")),
        ("state[0:2]", Source("state", 0, 2)),
        ("state[3]", Source("state", 3, 4)),
        ("state[2:]", Source("state", 2, None)),
        ("img*255", Source("img", scale=255.0)),
        ("img[0:3] * 0.5", Source("img", 0, 3, 0.5)),
    ],
)
def test_source_parses(text: str, expected: Source) -> None:
    assert Source.parse(text) == expected
    assert Source.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "state[", "state[a]", "state[:2]", "state[-1]", "state[2:2]", "state[0][1]", "a/b"]
)
def test_source_refuses_other_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="state"):
        Source.parse(text or "[0] of state")


def test_obs_source_prefers_the_fields_own_name(buffer: ReplayBuffer) -> None:
    assert obs_source("arm", ObsField("low_dim", (3,), source="state[0:3]"), buffer) == Source("arm")
    assert obs_source("pose", ObsField("low_dim", (3,), source="state[0:3]"), buffer) == Source("state", 0, 3)


def test_read_obs_slices_reshapes_and_takes_only_the_chosen_episodes(buffer: ReplayBuffer) -> None:
    pose = read_obs("pose", ObsField("low_dim", (2,), source="state[1:3]"), buffer, [1, 3])
    ends = buffer.episode_ends
    rows = np.r_[ends[0] : ends[1], ends[2] : ends[3]]
    assert pose.dtype == np.float32
    assert pose.flags.c_contiguous
    np.testing.assert_array_equal(pose, buffer["state"][rows, 1:3].astype(np.float32))
    points = read_obs("keypoints", ObsField("low_dim", (9, 2), source="keypoint"), buffer, [0])
    np.testing.assert_array_equal(points, buffer["keypoint"][:3].reshape(3, 9, 2))


def test_read_obs_takes_one_number_of_a_scalar_key(buffer: ReplayBuffer) -> None:
    closed = read_obs("closed", ObsField("low_dim", (1,), source="gripper"), buffer, [0, 1])
    np.testing.assert_array_equal(closed[:, 0], [0, 1, 2, 0, 1, 2, 3])


def test_obs_source_errors_say_what_the_data_set_has(buffer: ReplayBuffer) -> None:
    with pytest.raises(
        DataError, match=r"obs\.pose needs data 'pose'.*arm, gripper, img, keypoint, state; set obs\.pose\.source"
    ):
        obs_source("pose", ObsField("low_dim", (3,)), buffer)
    with pytest.raises(DataError, match=r"shape \(2,\) \(2 numbers\), but 'state' has \(5,\)"):
        obs_source("state", ObsField("low_dim", (2,)), buffer)
    with pytest.raises(DataError, match=r"must lie within the last axis.*5 entries"):
        obs_source("pose", ObsField("low_dim", (2,), source="state[4:6]"), buffer)


def test_read_action_concatenates_keys_in_the_stated_order(buffer: ReplayBuffer) -> None:
    action = read_action(ActionSpec((4,), source=("gripper", "arm")), buffer, [2])
    assert action.dtype == np.float32
    np.testing.assert_array_equal(action, np.repeat(np.arange(5.0)[:, None], 4, axis=1))
    swapped = read_action(ActionSpec((6,), source=("state[0:2]", "gripper", "arm")), buffer, [0, 1, 2, 3])
    np.testing.assert_array_equal(swapped[:, :2], buffer["state"][:, :2].astype(np.float32))
    np.testing.assert_array_equal(swapped[:, 2], buffer["gripper"])


def test_read_action_refuses_sizes_that_do_not_add_up(buffer: ReplayBuffer) -> None:
    with pytest.raises(DataError, match=r"must have 7 numbers .* but got 4 from 'arm' \(3,\) \+ 'gripper' \(\)"):
        read_action(ActionSpec((7,), source=("arm", "gripper")), buffer, [0])


@pytest.mark.parametrize(
    "read",
    [
        lambda buffer, episodes: read_obs("action", ObsField("low_dim", (2,)), buffer, episodes),
        lambda buffer, episodes: read_action(ActionSpec((2,)), buffer, episodes),
    ],
    ids=["obs", "action"],
)
def test_read_names_the_first_step_that_is_not_finite(read, tmp_path: Path) -> None:
    made = ReplayBuffer.create(tmp_path / "demos.zarr")
    for _ in range(3):
        made.add_episode({"action": np.zeros((5, 2), np.float32)})
    zarr.open_group(tmp_path / "demos.zarr", mode="r+")["data/action"][12, 1] = np.nan
    damaged = ReplayBuffer.open(tmp_path / "demos.zarr")
    with pytest.raises(DataError, match=r"'action' must be finite.*first at step 2 of episode 2 \(1 of 10 steps\)"):
        read(damaged, [0, 2])
    assert read(damaged, [0, 1]).shape == (10, 2), "episodes that are not chosen do not count"


def test_a_source_that_loses_against_other_numbers_of_the_fields_own_name_is_told(buffer: ReplayBuffer) -> None:
    assert shadowed("arm", ObsField("low_dim", (3,), source="state[0:3]"), buffer) == Source("state", 0, 3)
    assert shadowed("arm", ObsField("low_dim", (3,), source="keypoint[0:3]"), buffer) is None  # the same numbers
    assert shadowed("arm", ObsField("low_dim", (3,), source="absent"), buffer) is None
    assert shadowed("arm", ObsField("low_dim", (3,)), buffer) is None
    assert shadowed("pose", ObsField("low_dim", (3,), source="state[0:3]"), buffer) is None  # it is taken


def test_a_source_that_nobody_reads_need_not_fit(buffer: ReplayBuffer) -> None:
    for source in ("gripper[0:3]", "gripper", "img", "state"):  # too few numbers, a picture, too many
        assert shadowed("arm", ObsField("low_dim", (3,), source=source), buffer) is None
