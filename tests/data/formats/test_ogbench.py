"""OGBench's files in their three forms give the same episodes."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.data.formats.convert import convert
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, MissingFileError

STEPS = (4, 1, 6)


def trajectories() -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns states (T + 1, 3) and actions (T + 1, 2) of each, the last action meaning nothing."""
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(t + 1, 3)), rng.uniform(-1, 1, (t + 1, 2)).astype(np.float32)) for t in STEPS]


def raw() -> dict[str, np.ndarray]:
    """Returns a file's columns: rows of all states, `terminals` at the last of each."""
    found = trajectories()
    terminals = np.concatenate([np.arange(t + 1) == t for t in STEPS]).astype(np.float32)
    states = np.concatenate([states for states, _ in found])
    return {"observations": states, "actions": np.concatenate([each for _, each in found]), "terminals": terminals}


def compact() -> dict[str, np.ndarray]:
    """Returns what the library makes of it: the row before the last is terminal, too, and the last is not valid."""
    columns = raw()
    before = np.append(columns["terminals"][1:], 1)
    both = np.minimum(columns["terminals"] + before, 1)
    return {**columns, "valids": 1 - columns["terminals"], "terminals": both}


def regular() -> dict[str, np.ndarray]:
    """Returns its other form: rows of transitions, with what followed."""
    found = trajectories()
    return {
        "observations": np.concatenate([states[:-1] for states, _ in found]),
        "next_observations": np.concatenate([states[1:] for states, _ in found]),
        "actions": np.concatenate([actions[:-1] for _, actions in found]),
        "terminals": np.concatenate([np.arange(t) == t - 1 for t in STEPS]).astype(np.float32),
    }


def converted(tmp_path: Path, columns: dict, *, compressed: bool = True) -> ReplayBuffer:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **columns)
    return convert(str(tmp_path / "a.npz"), tmp_path / "a.zarr")


@pytest.mark.parametrize("form", [raw, compact, regular])
@pytest.mark.parametrize("compressed", [True, False])
def test_ogbench_trajectories_are_truncated_episodes(form, compressed: bool, tmp_path: Path) -> None:
    buffer = converted(tmp_path, form(), compressed=compressed)
    assert buffer.keys() == ["action", "next_observation", "observation", "terminated", "truncated"]
    assert buffer.num_episodes == len(STEPS)
    for i, (states, actions) in enumerate(trajectories()):
        episode = buffer.get_episode(i)
        np.testing.assert_array_equal(episode["observation"], states[:-1].astype(np.float32))
        np.testing.assert_array_equal(episode["next_observation"], states[1:].astype(np.float32))
        np.testing.assert_array_equal(episode["action"], actions[:-1])
        assert episode["truncated"].nonzero()[0].tolist() == [len(actions) - 2]
        assert not episode["terminated"].any()


def test_ogbench_keeps_rewards_pictures_and_simulator_states_where_there_are_any(tmp_path: Path) -> None:
    columns = raw()
    count = len(columns["terminals"])
    pictures = np.random.default_rng(1).integers(0, 255, (count, 4, 4, 3), np.uint8)
    columns |= {"observations": pictures, "rewards": np.arange(count, dtype=float), "qpos": np.ones((count, 5))}
    buffer = converted(tmp_path, columns)
    assert (buffer.shape("observation"), buffer.dtype("observation")) == ((4, 4, 3), np.uint8)
    np.testing.assert_array_equal(buffer.get_episode(2)["next_observation"], pictures[8:])
    assert buffer.get_episode(1)["reward"].tolist() == [5]
    assert buffer.shape("qpos") == (5,)


def test_ogbench_steps_that_solve_the_task_terminate(tmp_path: Path) -> None:
    columns = regular()
    count = len(columns["terminals"])
    masks = np.ones(count)
    masks[1] = masks[count - 1] = 0
    buffer = converted(tmp_path, {**columns, "masks": masks, "rewards": masks - 1})
    assert buffer.num_episodes == len(STEPS) + 1  # the first is cut in two
    np.testing.assert_array_equal(buffer["terminated"], masks == 0)
    np.testing.assert_array_equal(buffer["truncated"], (columns["terminals"] > 0) & (masks == 1))
    np.testing.assert_array_equal(buffer["next_observation"], columns["next_observations"].astype(np.float32))
    (tmp_path / "raw").mkdir()
    solved = {**raw(), "masks": np.zeros(len(raw()["terminals"]))}
    with pytest.raises(DataError, match="masks say that 14 steps solve the task, but without next_observations"):
        converted(tmp_path / "raw", solved)


def test_ogbench_states_alone_are_no_episodes(tmp_path: Path) -> None:
    columns = raw()
    columns["terminals"][:] = 1
    with pytest.raises(DataError, match="expected episodes with steps"):
        converted(tmp_path, columns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": None}, "actions is missing; it has: observations, terminals"),
        ({"actions": np.zeros((3, 2))}, "expected columns of one length, but got observations 14, actions 3"),
        ({"actions": np.array(["left"] * 14)}, "'actions' must hold numbers, but got dtype <U4"),
        ({"actions": np.array([None] * 14)}, "'actions' must hold steps of numbers"),
        ({"terminals": np.full(14, 0.5)}, "'terminals' must hold zeros and ones"),
        ({name: values[:0] for name, values in raw().items()}, "expected steps, but its columns are empty"),
        ({"observations": np.full((14, 3), np.inf)}, "a.npz: episode 0: 'next_observation' must be finite"),
    ],
)
def test_ogbench_says_in_one_line_what_is_wrong_and_leaves_nothing(changes, message, tmp_path: Path) -> None:
    columns = {name: values for name, values in {**raw(), **changes}.items() if values is not None}
    with pytest.raises(DataError) as raised:
        converted(tmp_path, columns)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_ogbench_file_cut_short_is_refused(kept: float, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **raw())
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match="damaged or no npz"):
        convert(str(tmp_path / "a.npz"), tmp_path / "a.zarr")


def test_ogbench_file_with_flipped_bits_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **raw())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[300] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="damaged or no npz"):
        convert(str(tmp_path / "a.npz"), tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_ogbench_takes_no_time_limit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **raw())
    with pytest.raises(ConfigError, match="leave --max-episode-steps out"):
        convert(str(tmp_path / "a.npz"), tmp_path / "a.zarr", max_episode_steps=5)
    with pytest.raises(MissingFileError, match="does not exist"):
        convert(str(tmp_path / "b.npz"), tmp_path / "a.zarr")
