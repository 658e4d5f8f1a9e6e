"""D4RL's files: ends by timeouts, by a limit, by next observations, and everything that can be wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.data.formats.convert import convert, prepare
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, MissingFileError

h5py = pytest.importorskip("h5py")
LENGTHS = (5, 3, 5, 1, 4)
TERMINATED = (1, 3)  # of these episodes; the others ran out of time


def columns() -> dict[str, np.ndarray]:
    """Returns five episodes of a walk in two dimensions, float64 as in many files."""
    rng = np.random.default_rng(0)
    walks = [rng.normal(size=(length + 1, 2)).cumsum(axis=0) for length in LENGTHS]
    ends, count = np.cumsum(LENGTHS) - 1, sum(LENGTHS)
    terminals, timeouts = np.zeros(count, bool), np.zeros(count, bool)
    terminals[ends[list(TERMINATED)]] = True
    timeouts[np.delete(ends, TERMINATED)] = True
    return {
        "observations": np.concatenate([walk[:-1] for walk in walks]),
        "next_observations": np.concatenate([walk[1:] for walk in walks]),
        "actions": rng.uniform(-1, 1, (count, 3)).astype(np.float32),
        "rewards": rng.normal(size=count),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def saved(path: Path, **changes) -> str:
    with h5py.File(path, "w") as file:
        for name, values in {**columns(), **changes}.items():
            if values is not None:
                file[name] = values
        file["metadata/algorithm"] = b"SAC"
        file["infos/qpos"] = np.zeros((3, 2))
    return str(path)


def converted(tmp_path: Path, *, limit: int | None = None, **changes) -> ReplayBuffer:
    return convert(saved(tmp_path / "a.hdf5", **changes), tmp_path / "a.zarr", max_episode_steps=limit)


def test_d4rl_episodes_hold_what_the_file_does(tmp_path: Path) -> None:
    buffer, given = converted(tmp_path), columns()
    assert buffer.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert buffer.keys() == ["action", "next_observation", "observation", "reward", "terminated", "truncated"]
    for key, name in (
        ("observation", "observations"),
        ("next_observation", "next_observations"),
        ("action", "actions"),
    ):
        assert buffer.dtype(key) == np.float32
        np.testing.assert_array_equal(buffer[key], given[name].astype(np.float32))
    np.testing.assert_array_equal(buffer["reward"], given["rewards"].astype(np.float32))
    np.testing.assert_array_equal(buffer["terminated"], given["terminals"])
    np.testing.assert_array_equal(buffer["truncated"], given["timeouts"])
    assert buffer.attrs["provenance"]["converted_from"] == {"format": "d4rl", "source": "a.hdf5"}
    assert buffer.verify()


def test_d4rl_preview_says_what_is_left_in_the_file(tmp_path: Path) -> None:
    lines = preview(prepare(saved(tmp_path / "a.hdf5"), tmp_path / "a.zarr"))
    assert lines[0].endswith("a.hdf5; 5 episodes, 18 steps, rate not told")
    kept = ["rewards", "float64", "1", "->", "reward", "float32", "1", "->", "data/reward", "#", "float64"]
    assert kept in [line.split()[:11] for line in lines]
    assert {"dropped  infos: no column of steps", "dropped  metadata: no column of steps"} <= set(lines)


def test_d4rl_without_timeouts_ends_where_the_next_row_does_not_follow(tmp_path: Path) -> None:
    buffer = converted(tmp_path, timeouts=None)
    assert buffer.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    np.testing.assert_array_equal(buffer["truncated"], columns()["timeouts"])


def test_d4rl_columns_of_two_precisions_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    rounded = columns()["observations"].astype(np.float32)
    buffer = converted(tmp_path, timeouts=None, observations=rounded)
    assert buffer.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()


def test_d4rl_without_timeouts_ends_at_the_time_limit(tmp_path: Path) -> None:
    buffer = converted(tmp_path, timeouts=None, next_observations=None, limit=5)
    assert buffer.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert "next_observation" not in buffer
    np.testing.assert_array_equal(buffer["truncated"], columns()["timeouts"])
    np.testing.assert_array_equal(buffer["terminated"], columns()["terminals"])


def test_d4rl_file_that_breaks_off_in_an_episode_is_truncated_there(tmp_path: Path) -> None:
    timeouts = columns()["timeouts"]
    timeouts[-1] = False
    buffer = converted(tmp_path, timeouts=timeouts)
    assert buffer["truncated"][-1]
    assert not buffer["terminated"][-1]


def test_d4rl_termination_counts_where_the_time_was_over_too(tmp_path: Path) -> None:
    buffer = converted(tmp_path, timeouts=columns()["timeouts"] | columns()["terminals"])
    np.testing.assert_array_equal(buffer["truncated"], columns()["timeouts"])


def test_d4rl_flags_and_rewards_come_in_many_forms(tmp_path: Path) -> None:
    given = columns()
    changes = {"terminals": given["terminals"].astype(np.float32)[:, None], "rewards": given["rewards"][:, None]}
    buffer = converted(tmp_path, **changes)
    assert (buffer.shape("reward"), buffer.dtype("terminated")) == ((), bool)
    np.testing.assert_array_equal(buffer["terminated"], given["terminals"])


def test_d4rl_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted(tmp_path, timeouts=None)
    monkeypatch.setattr("diffusion_policy.data.formats.d4rl.BLOCK_BYTES", 100)
    (tmp_path / "small").mkdir()
    assert converted(tmp_path / "small", timeouts=None).digest() == whole.digest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "rewards is missing; it has: actions, infos, metadata"),
        ({"actions": None, "terminals": None}, "actions, terminals are missing"),
        ({"rewards": np.zeros(17)}, "expected columns of one length, but got observations 18, actions 18, rewards 17"),
        ({"actions": np.array([b"left"] * 18)}, "'actions' must hold numbers, but got dtype |S4"),
        ({"terminals": np.full(18, 7)}, "'terminals' must hold zeros and ones"),
        ({"terminals": np.array([b"no"] * 18)}, "'terminals' must hold zeros and ones"),
        ({"rewards": 3.0}, "'rewards' must be an array of steps"),
        ({"rewards": np.zeros((18, 2))}, "'rewards' must be one number a step"),
        ({"timeouts": None, "next_observations": None}, "with --max-episode-steps N"),
        ({name: values[:0] for name, values in columns().items()}, "expected steps, but its columns are empty"),
        (
            {"rewards": np.where(np.arange(18) == 6, np.nan, 1.0)},
            "a.hdf5: episode 1: 'reward' must be finite, but step 1",
        ),
    ],
)
def test_d4rl_says_in_one_line_what_is_wrong_and_leaves_nothing(changes, message, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        converted(tmp_path, **changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]


def test_d4rl_limit_must_be_of_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave --max-episode-steps out"):
        converted(tmp_path, limit=5)
    with pytest.raises(ConfigError, match="must be at least 1, but got 0"):
        converted(tmp_path, timeouts=None, limit=0)


@pytest.mark.parametrize("kept", [0, 10, 700, 0.5, 0.99])
def test_d4rl_file_cut_short_is_refused(kept: float, tmp_path: Path) -> None:
    whole = Path(saved(tmp_path / "a.hdf5")).read_bytes()
    (tmp_path / "a.hdf5").write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(DataError, match="damaged or no HDF5"):
        convert(str(tmp_path / "a.hdf5"), tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]


def test_d4rl_chunk_with_flipped_bits_is_refused_half_way(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, values in columns().items():
            file.create_dataset(name, data=values, chunks=(6, *values.shape[1:]), fletcher32=True)
        place = file["rewards"].id.get_chunk_info(2).byte_offset
    content = bytearray((tmp_path / "a.hdf5").read_bytes())
    content[place] ^= 1
    (tmp_path / "a.hdf5").write_bytes(content)
    with pytest.raises(DataError, match="damaged or no HDF5"):
        convert(str(tmp_path / "a.hdf5"), tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]


def test_d4rl_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.hdf5")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'diffusion-policy\[offline\]'"):
        convert(path, tmp_path / "a.zarr")
    monkeypatch.undo()
    with pytest.raises(MissingFileError, match="does not exist"):
        convert(str(tmp_path / "nothing.hdf5"), tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["observations", "rewards", "timeouts"])
def test_d4rl_numbers_of_other_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.arange(36.0).tobytes())
    with h5py.File(tmp_path / "secret.hdf5", "w") as other:
        other["x"] = columns()[name]
    outside = columns()[name].astype(np.float64)
    for kind, message in (("link", "is a link to something else"), ("raw", "lies in another file")):
        source = saved(tmp_path / f"{kind}.hdf5", **{name: None})
        with h5py.File(source, "a") as file:
            if kind == "link":
                file[name] = h5py.ExternalLink("secret.hdf5", "x")
            else:
                where = [(str(tmp_path / "secret.bin"), 0, outside.nbytes)]
                file.create_dataset(name, outside.shape, outside.dtype, external=where)
        with pytest.raises(DataError, match=f"'{name}' {message}"):
            convert(source, tmp_path / "a.zarr")
        assert not (tmp_path / "a.zarr").exists()


def test_d4rl_links_that_nobody_needs_are_left_alone(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.hdf5")
    with h5py.File(source, "a") as file:
        file["extra"] = h5py.ExternalLink("nowhere.hdf5", "x")
    assert "dropped  extra: not followed" in preview(prepare(source, tmp_path / "a.zarr"))
    assert convert(source, tmp_path / "a.zarr").num_episodes == len(LENGTHS)
