"""dp-convert as a person types it; each format has tests of its own."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy import ReplayBuffer
from diffusion_policy.cli import inspect
from diffusion_policy.cli.convert import main
from diffusion_policy.data.formats.reading import FORMATS, Format, Reading
from tests.cli.running import script


@pytest.fixture
def walks(tmp_path: Path) -> Path:
    count = np.arange(12.0)[:, None]
    np.savez(tmp_path / "walks.npz", observations=count, actions=np.cos(count), terminals=np.arange(12) % 6 == 5)
    return tmp_path / "walks.npz"


def test_convert_writes_what_inspect_and_the_library_read(walks: Path, tmp_path: Path, capsys) -> None:
    assert main([str(walks), str(tmp_path / "walks.zarr")]) == 0
    out = capsys.readouterr().out
    assert "OGBench's npz files" in out
    assert "2 episodes, 10 steps; action, next_observation, observation, terminated, truncated" in out
    assert inspect.main([str(tmp_path / "walks.zarr")]) == 0
    assert main([str(walks), str(tmp_path / "walks.zip")]) == 0
    with ReplayBuffer.open(tmp_path / "walks.zip") as packed, ReplayBuffer.open(tmp_path / "walks.zarr") as folder:
        assert packed.digest() == folder.digest()
    assert {path.name for path in tmp_path.iterdir()} == {"walks.npz", "walks.zarr", "walks.zip"}


def test_converted_simulator_data_pass_the_physics_check(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    h5py = pytest.importorskip("h5py")
    env, rows = gym.make("Hopper-v5"), []
    for seed in range(4):
        obs, over = env.reset(seed=seed)[0], False
        env.action_space.seed(seed)
        while not over:
            action = env.action_space.sample()
            after, reward, terminated, truncated, _ = env.step(action)
            rows.append((obs, action, reward, terminated, truncated))
            obs, over = after, terminated or truncated
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            file[name] = np.array(values)
    assert main([str(tmp_path / "hopper.hdf5"), str(tmp_path / "hopper.zarr"), "--env", "Hopper-v5"]) == 0
    assert ReplayBuffer.open(tmp_path / "hopper.zarr").attrs["provenance"]["action_bounds"] == [[-1] * 3, [1] * 3]
    assert inspect.main([str(tmp_path / "hopper.zarr"), "--physics"]) == 0
    out = capsys.readouterr().out
    assert "100.0% exact" in out
    assert "D4RL reference, env v5" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.npz"], "nothing.npz does not exist"),
        (["nothing"], "nothing does not exist; give a data set of another format"),
        (["notes.txt"], "looks like none of the known formats; say which with --format: d4rl (D4RL's HDF5 files)"),
        (["walks.npz", "--format", "d4rl"], "damaged or no HDF5"),
        (["taken.zarr", "--format", "d4rl"], "taken.zarr is no file; give one of D4RL's files (.hdf5)"),
        (["walks.npz", "--max-episode-steps", "5"], "leave --max-episode-steps out"),
        (["walks.npz", "--env", "Nope-v7"], "unknown environment 'Nope-v7'"),
        (["walks.npz", "out=taken.zarr"], "taken.zarr already exists"),
    ],
)
def test_convert_exits_2_with_one_line_and_leaves_nothing(words, message, walks, monkeypatch, capsys) -> None:
    if "d4rl" in words:
        pytest.importorskip("h5py")
    monkeypatch.chdir(walks.parent)
    Path("notes.txt").write_text("hello")
    Path("taken.zarr").mkdir()
    out = next((word.partition("=")[2] for word in words if word.startswith("out=")), "new.zarr")
    source, *options = [word for word in words if not word.startswith("out=")]
    assert main([source, out, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"walks.npz", "notes.txt", "taken.zarr"}


def test_convert_dry_run_prints_the_mapping_and_writes_nothing(walks: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(walks), str(walks.with_name("new.zarr")), "--dry-run", "--control-hz", "20"]) == 0
    out = capsys.readouterr().out
    assert "OGBench's npz files" in out
    assert "10 steps, 20 steps a second" in out
    rows = [line.split() for line in out.splitlines()]
    assert rows[3][:9] == ["actions", "float64", "1", "->", "action", "float32", "1", "->", "data/action"]
    assert "dry run: nothing was written" in out
    assert [path.name for path in walks.parent.iterdir()] == ["walks.npz"]


def test_convert_mends_what_inspect_finds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(tmp_path / "demos.zarr") as buffer:
        for way in ([1, 1], [1, -1], [-1, 0.5]):
            moving = np.cumsum(rng.normal(1, 0.2, size=(30, 2)), axis=0) * way
            waiting = np.repeat(moving[:1], 20, axis=0)
            buffer.add_episode({"action": np.concatenate([waiting, moving]).astype(np.float32)})
        buffer.add_episode(buffer.get_episode(0))
    source, out = str(tmp_path / "demos.zarr"), str(tmp_path / "better.zarr")
    assert inspect.main([source]) == 1
    assert f"at once  dp-convert {source} mended.zarr --trim --drop duplicates\n" in capsys.readouterr().out
    assert main([source, out, "--trim", "--drop", "duplicates"]) == 0
    said = capsys.readouterr().out
    assert "mended   1 episode dropped: duplicates" in said
    assert "mended   57 idle steps trimmed from 3 episodes" in said  # 21 in one place but for the margin of 2, each
    assert inspect.main([out]) == 0
    assert "warning" not in capsys.readouterr().out
    slow = str(tmp_path / "slow.zarr")
    assert main([out, slow, "--resample", "5", "--action-kind", "delta", "--control-hz", "10"]) == 0
    assert "mended   brought to 5 steps a second" in capsys.readouterr().out
    with ReplayBuffer.open(out) as before, ReplayBuffer.open(slow) as after:
        np.testing.assert_allclose(after["action"].sum(axis=0), before["action"].sum(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["walks.npz", "--trim"], "convert others first, without these"),
        (["demos.zarr", "--trim", "--env", "Hopper-v5"], "--env is of no use with --trim, --drop and --resample"),
        (["demos.zarr", "--drop", "seven"], "--drop takes numbers of episodes, duplicates"),
        (["demos.zarr", "--declare", "a=angle"], "are for --resample HZ"),
        (["demos.zarr", "--trim", "out=new.hdf5"], "mending writes zarr; name it .zarr or .zip"),
        (["demos.zarr", "--resample", "5", "--action-kind", "rate"], "say --control-hz HZ"),
    ],
)
def test_convert_that_cannot_mend_says_so_in_one_line(words, message, walks, monkeypatch, capsys) -> None:
    monkeypatch.chdir(walks.parent)
    with ReplayBuffer.create("demos.zarr") as buffer:
        buffer.add_episode({"action": np.cumsum(np.ones((30, 2)), axis=0)})
    out = next((word.partition("=")[2] for word in words if word.startswith("out=")), "new.zarr")
    source, *options = [word for word in words if not word.startswith("out=")]
    assert main([source, out, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not Path(out).exists()


def test_convert_that_is_interrupted_leaves_nothing(walks: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted():
        yield {"action": np.zeros((3, 1))}
        raise KeyboardInterrupt

    endless = Format("a stream", lambda source: False, lambda source, **_: Reading(interrupted(), 3))
    monkeypatch.setitem(FORMATS._entries, "stream", endless)
    assert main([str(walks), str(walks.with_name("new.zarr")), "--format", "stream"]) == 130
    assert "interrupted, nothing written" in capsys.readouterr().err
    assert [path.name for path in walks.parent.iterdir()] == ["walks.npz"]


def test_convert_script_shows_examples(tmp_path: Path) -> None:
    done = script("convert", "--help", folder=tmp_path)
    assert done.code == 0
    assert "dp-convert mujoco/hopper/medium-v0 hopper.zarr" in done.out
    assert "dp-convert demos.zarr better.zarr --trim" in done.out
