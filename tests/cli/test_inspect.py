"""dp-inspect as a person types it."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import zarr
from PIL import Image

from diffusion_policy import ReplayBuffer
from diffusion_policy.cli.inspect import main


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr", attrs={"renderer": "mujoco", "provenance": {"seed": 7}})
    rng = np.random.default_rng(0)
    for steps in (12, 9):
        image = rng.integers(0, 255, (steps, 16, 16, 3), dtype=np.uint8)
        buffer.add_episode({"action": rng.normal(size=(steps, 2)).astype(np.float32), "img": image})
    return tmp_path / "demos.zarr"


def test_inspect_prints_what_is_there(demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(demos)]) == 0
    out = capsys.readouterr().out
    assert "2 episodes, 21 steps" in out
    assert "9 shortest, 10.5 median, 12 longest" in out
    assert "renderer mujoco" in out
    assert '{"seed": 7}' in out
    assert "16x16x3" in out
    assert ReplayBuffer.open(demos).digest() in out
    assert "no problem found" in out


def test_inspect_exits_1_when_a_check_fails(demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zarr.open_group(demos, mode="r+")["data/action"][14, 0] = np.nan
    assert main([str(demos), "--keys", "action"]) == 1
    assert "NaN or infinite, first at step 2 of episode 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.zarr"], "nothing.zarr does not exist"),
        (["{demos}", "--keys", "actoin"], "no data 'actoin', it has: action, img"),
        (["{demos}", "--video", "{demos}"], "already exists"),
        (["{demos}", "--video", "new.mp4", "--episodes", "5"], "but got 5"),
        (["{demos}/data"], "expected the groups data/ and meta/"),
        (["package://nonsense"], "no bundled demonstrations"),
    ],
)
def test_inspect_exits_2_with_one_line(arguments, message, demos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([each.format(demos=demos) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_inspect_refuses_an_empty_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ReplayBuffer.create(tmp_path / "empty.zarr")
    assert main([str(tmp_path / "empty.zarr")]) == 2
    assert "expected episodes, but there are none" in capsys.readouterr().err


def test_inspect_films_and_plots(demos: Path, tmp_path: Path) -> None:
    video, plot = tmp_path / "demos.mp4", tmp_path / "plots" / "demos.png"
    assert main([str(demos), "--video", str(video), "--plot", str(plot), "--episodes", "1"]) == 0
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, np.uint8)
    frames = frames.reshape(9, 256, 256, 3)
    expected = ReplayBuffer.open(demos).get_episode(1)["img"][4].mean()
    assert frames[4].mean() == pytest.approx(expected, abs=4)
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_inspect_says_when_there_is_nothing_to_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr")
    buffer.add_episode({"action": np.zeros((5, 2)), "keypoints": np.zeros((5, 9, 2))})
    assert main([str(tmp_path / "demos.zarr"), "--video", str(tmp_path / "a.mp4")]) == 2
    assert "no frames to film" in capsys.readouterr().err
    assert not (tmp_path / "a.mp4").exists()


def test_inspect_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    assert "dp-inspect demos.zarr --video demos.mp4" in capsys.readouterr().out
