"""Batches gathered from resident tensors, and the split by episodes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy import ReplayBuffer
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset, split_episodes
from diffusion_policy.errors import ConfigError, DataError

HORIZONS = Horizons(2, 3, 6)
OBS = {
    "points": ObsField("low_dim", (2, 2), source="state[0:4]"),
    "front": ObsField("rgb", (8, 8, 3), source="img"),
}
ACTION = ActionSpec((2,))


@pytest.fixture
def buffer(make_episode) -> ReplayBuffer:
    made = ReplayBuffer.create()
    for seed, steps in enumerate((9, 12, 7, 20)):
        made.add_episode(make_episode(steps, seed))
    return made


def test_batch_equals_rows_of_the_buffer(buffer: ReplayBuffer) -> None:
    data = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS)
    ids = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    batch = data.batch(ids)
    steps, obs_steps = data.index.steps(ids.numpy()), data.index.obs_steps(ids.numpy())
    np.testing.assert_array_equal(batch.action.numpy(), buffer["action"][steps])
    np.testing.assert_array_equal(batch.obs["points"].numpy(), buffer["state"][obs_steps][..., :4].reshape(-1, 2, 2, 2))
    np.testing.assert_array_equal(batch.obs["front"].numpy(), buffer["img"][obs_steps])
    assert batch.obs["front"].dtype == torch.uint8
    assert batch.action.dtype == torch.float32


def test_dataset_of_some_episodes_holds_nothing_else(buffer: ReplayBuffer) -> None:
    data = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, episodes=[3, 1])
    ends = buffer.episode_ends
    rows = np.r_[ends[0] : ends[1], ends[2] : ends[3]]
    np.testing.assert_array_equal(data.all_actions().numpy(), buffer["action"][rows])
    np.testing.assert_array_equal(data.all_obs("front").numpy(), buffer["img"][rows])
    assert data.num_steps == 32
    whole = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS)
    where = np.flatnonzero(np.isin(whole.index.episode_of(np.arange(len(whole))), [1, 3]))
    assert torch.equal(data.batch(np.arange(len(data))).action, whole.batch(where).action)


def negated(obs, action):
    return {key: 255 - values if values.dtype == np.uint8 else -values for key, values in obs.items()}, -action


def test_mirrored_dataset_holds_each_window_and_its_image(buffer: ReplayBuffer) -> None:
    data = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, episodes=[3, 1])
    both = data.with_mirrored(negated)
    assert (len(both), both.num_steps) == (2 * len(data), 2 * data.num_steps)
    seen, all_ids = data.batch(np.arange(len(data))), np.arange(len(both))
    original, image = both.batch(all_ids[: len(data)]), both.batch(all_ids[len(data) :])
    for key, values in seen.obs.items():
        assert torch.equal(original.obs[key], values)
        assert torch.equal(image.obs[key], 255 - values if key == "front" else -values)
    assert torch.equal(image.action, -seen.action)  # no window reaches from an episode into its image
    assert both.index.episode_of(all_ids).tolist() == 2 * data.index.episode_of(np.arange(len(data))).tolist()


def test_mirroring_tells_how_far_it_is(buffer: ReplayBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_policy.data.dataset._MIRRORED_AT_ONCE", 7)
    data, told = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS), []
    data.with_mirrored(negated, on_step=told.append)
    assert told == [*range(7, data.num_steps, 7), data.num_steps]


def test_mirror_may_work_in_place_and_return_views(buffer: ReplayBuffer) -> None:
    def mirror(obs, action):
        action[:, 0] *= -1
        return {"points": obs["points"][..., ::-1], "front": obs["front"][:, :, ::-1]}, action

    data = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS)
    both = data.with_mirrored(mirror)
    assert torch.equal(both.all_actions()[: data.num_steps], torch.from_numpy(buffer["action"]))
    assert torch.equal(both.all_actions()[data.num_steps :], torch.from_numpy(buffer["action"] * np.float32([-1, 1])))
    ids = np.arange(len(data))
    turned = both.batch(ids + len(data)).obs["front"]
    assert torch.equal(turned, data.batch(ids).obs["front"].flip(3))


def test_mirror_sees_actions_in_the_shape_of_the_task(buffer: ReplayBuffer) -> None:
    def mirror(obs, action):
        assert action.shape[1:] == (1, 2)
        return obs, -action

    data = WindowDataset.from_buffer(buffer, OBS, ActionSpec((1, 2)), HORIZONS)
    both = data.with_mirrored(mirror, (1, 2))
    assert torch.equal(both.all_actions()[data.num_steps :], -data.all_actions())


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda obs, action: (obs, action[:-1]),
            r"action must stay float32 \(48, 2\), but came back as float32 \(47, 2\)",
        ),
        (lambda obs, action: (obs, None), "action must stay .* but came back as nothing"),
        (lambda obs, action: ({"points": obs["points"]}, action), r"obs.front must stay .* came back as nothing"),
        (lambda obs, action: ({**obs, "front": obs["front"] / 2}, action), "obs.front must stay uint8 .* as float64"),
        (lambda obs, action: (obs, action * np.nan), "action must be finite"),
    ],
    ids=["steps", "none", "key", "dtype", "nan"],
)
def test_mirror_that_returns_something_else_is_refused(broken, message, buffer: ReplayBuffer) -> None:
    with pytest.raises(DataError, match=message):
        WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS).with_mirrored(broken)


def test_batch_is_the_same_row_by_row(buffer: ReplayBuffer) -> None:
    data = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS)
    together = data.batch(np.arange(10))
    for i in range(10):
        assert torch.equal(data.batch(torch.tensor([i])).obs["points"][0], together.obs["points"][i])


def test_batch_never_mixes_episodes(buffer: ReplayBuffer) -> None:
    marked = ReplayBuffer.create()
    for i, steps in enumerate((9, 12, 7)):
        marked.add_episode({"action": np.full((steps, 2), i, np.float32), "obs": np.full((steps, 1), i, np.float32)})
    data = WindowDataset.from_buffer(marked, {"obs": ObsField("low_dim", (1,))}, ACTION, HORIZONS)
    batch = data.batch(np.arange(len(data)))
    assert (batch.action == batch.action[:, :1]).all()
    assert (batch.action[:, :2, :1] == batch.obs["obs"]).all()


def test_describe_uses_the_data_sets_own_episode_numbers(buffer: ReplayBuffer) -> None:
    data = WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, episodes=[3])
    assert data.describe([0, 5], limit=1) == (
        "window 0: episode 3, steps 0-4 of 20 (edges repeated: 1 before, 0 after); and 1 more"
    )


def test_from_buffer_refuses_short_episodes_unless_told_to_drop_them(buffer: ReplayBuffer) -> None:
    with pytest.raises(
        DataError, match=r"memory: .*at least horizons\.pred_horizon = 10 steps.*episode 0 with 9.*drop_short"
    ):
        WindowDataset.from_buffer(buffer, OBS, ACTION, Horizons(2, 3, 10))
    data = WindowDataset.from_buffer(buffer, OBS, ACTION, Horizons(2, 3, 10), drop_short=True)
    assert set(data.index.episode_of(np.arange(len(data))).tolist()) == {1, 3}
    np.testing.assert_array_equal(data.all_actions().numpy(), np.r_[buffer["action"][9:21], buffer["action"][28:48]])


def test_from_buffer_refuses_episodes_that_do_not_exist(buffer: ReplayBuffer) -> None:
    with pytest.raises(DataError, match=r"episodes must be in \[0, 4\), but got 1\.\.4"):
        WindowDataset.from_buffer(buffer, OBS, ACTION, HORIZONS, episodes=[1, 4])
    with pytest.raises(DataError, match="at least one episode"):
        WindowDataset.from_buffer(ReplayBuffer.create(), OBS, ACTION, HORIZONS)


@given(st.integers(2, 300), st.floats(0.001, 0.9), st.integers(0, 2**31), st.none() | st.integers(1, 100))
def test_split_is_disjoint_and_as_large_as_stated(count: int, ratio: float, seed: int, limit: int | None) -> None:
    train, val = split_episodes(count, val_ratio=ratio, seed=seed, max_episodes=limit)
    assert len(val) == min(max(1, round(count * ratio)), count - 1)
    assert len(train) == min(count - len(val), limit or count)
    assert not set(train.tolist()) & set(val.tolist())
    assert set(train.tolist()) | set(val.tolist()) <= set(range(count))
    again = split_episodes(count, val_ratio=ratio, seed=seed, max_episodes=limit)
    assert (train.tolist(), val.tolist()) == (again[0].tolist(), again[1].tolist())
    assert val.tolist() == split_episodes(count, val_ratio=ratio, seed=seed)[1].tolist(), "the limit moved validation"


def test_split_is_the_published_one() -> None:
    """206 episodes, seed 42, ratio 0.02: the episodes the paper's Push-T runs hold out."""
    assert split_episodes(206, val_ratio=0.02, seed=42)[1].tolist() == [18, 90, 134, 157]


def test_split_without_validation_keeps_everything() -> None:
    assert [len(part) for part in split_episodes(5, val_ratio=0.0, seed=0)] == [5, 0]
    assert [len(part) for part in split_episodes(1, val_ratio=0.5, seed=0)] == [1, 0]


@pytest.mark.parametrize("bad", [{"val_ratio": 1.0}, {"val_ratio": -0.1}, {"val_ratio": 0.1, "max_episodes": 0}])
def test_split_refuses_numbers_out_of_range(bad: dict) -> None:
    with pytest.raises(ConfigError, match="must be"):
        split_episodes(10, seed=0, **bad)


def test_human_demonstrations_train_unchanged(human_pusht: Path) -> None:
    obs = {
        "agent_pos": ObsField("low_dim", (2,), source="state[0:2]"),
        "keypoints": ObsField("low_dim", (9, 2), source="keypoint"),
    }
    buffer = ReplayBuffer.open(human_pusht)
    train, val = split_episodes(buffer.num_episodes, val_ratio=0.02, seed=42, max_episodes=90)
    data = WindowDataset.from_buffer(buffer, obs, ACTION, Horizons(2, 8, 16), episodes=train)
    assert (len(train), len(val)) == (90, 4)
    assert len(data) == data.num_steps - 90 * (16 - 2 - 8 + 1)
    batch = data.batch(np.arange(256))
    assert batch.obs["keypoints"].shape == (256, 2, 9, 2)
    first = buffer.get_episode(int(train[0]), ["state", "keypoint", "action"])
    np.testing.assert_array_equal(batch.obs["agent_pos"][5, 1], first["state"][5, :2])
    np.testing.assert_array_equal(batch.obs["keypoints"][5, 0].flatten(), first["keypoint"][4].flatten())
    np.testing.assert_array_equal(batch.action[5], first["action"][4:20])


def test_split_leaves_out_what_is_not_allowed_and_moves_nothing_else() -> None:
    allowed = np.arange(40) % 3 == 0
    everything, held_out = split_episodes(40, val_ratio=0.2, seed=1)
    train, val = split_episodes(40, val_ratio=0.2, seed=1, allowed=allowed)
    assert train.tolist() == [i for i in everything.tolist() if allowed[i]]
    assert val.tolist() == [i for i in held_out.tolist() if allowed[i]]
    assert len(split_episodes(40, val_ratio=0.2, seed=1, max_episodes=5, allowed=allowed)[0]) == 5
    with pytest.raises(ConfigError, match="none of the 32 training episodes may be used"):
        split_episodes(40, val_ratio=0.2, seed=1, allowed=np.zeros(40, bool))
