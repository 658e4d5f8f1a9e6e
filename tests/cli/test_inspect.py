"""dp-inspect as a person types it."""

import base64
import io
import json
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import zarr
from PIL import Image

from diffusion_policy import ReplayBuffer
from diffusion_policy.cli.inspect import main
from diffusion_policy.rollout.actors import NoisyActor, RandomActor
from diffusion_policy.rollout.collect import collect


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
    assert "provenance\n  seed  7\n" in out
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
        (["{demos}", "--video", "new.mp4", "--only", "5"], "but got 5"),
        (["{demos}", "--only", "0"], "--only is about a picture or film: give --picture FILE.png or --video FILE.mp4"),
        (["{demos}", "--report", "new.html", "--episodes", "3"], "--episodes is about a picture or film"),
        (["{demos}", "--picture", "new.jpg"], "must name a .png, but got new.jpg"),
        (["{demos}", "--report", "new.pdf"], "must name a .html, but got new.pdf"),
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


@pytest.fixture
def push(tmp_path: Path) -> Path:
    """Steps of Push-T without images, which only the environment can show."""
    provenance = {"env_id": "diffusion_policy_envs:PushT-v0", "kwargs": {"obs_keys": ["state"], "renderer": "draw2d"}}
    buffer = ReplayBuffer.create(tmp_path / "push.zarr", attrs={"provenance": provenance})
    for steps in (4, 6):
        state = np.linspace([100, 100, 300, 200, 0], [200, 100, 300, 200, 1], steps, dtype=np.float32)
        buffer.add_episode({"action": state[:, :2], "state": state})
    return tmp_path / "push.zarr"


def frames_of(video: Path, height: int, width: int) -> np.ndarray:
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, np.uint8)
    return frames.reshape(-1, height, width, 3)


def test_inspect_films_pictures_and_plots_recorded_images(demos: Path, tmp_path: Path) -> None:
    video, picture, plot = tmp_path / "a.mp4", tmp_path / "new" / "a.png", tmp_path / "plots" / "a.png"
    words = [str(demos), "--video", str(video), "--plot", str(plot), "--picture", str(picture), "--only", "1"]
    assert main(words) == 0
    frames = frames_of(video, 366, 266)  # 256 x 256, a strip of the actions, caption and border
    assert len(frames) == 9 + 15
    expected = ReplayBuffer.open(demos).get_episode(1)["img"][4].mean()
    assert frames[4, 32:280, 8:-8].mean() == pytest.approx(expected, abs=4)
    for path in (plot, picture):
        with Image.open(path) as image:
            assert image.format == "PNG"


def test_inspect_films_what_the_recorded_environment_draws(push: Path, tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    assert main([str(push), "--video", str(video), "--fps", "5"]) == 0
    frames = frames_of(video, 290, 532)
    assert len(frames) == 6 + 8
    goal = frames[0, 24 + 5 + 148, 5 + 108].astype(int)
    assert goal[1] > goal[0] + 40  # green, beneath caption and border


def test_inspect_films_as_fast_as_the_data_say(push: Path, tmp_path: Path) -> None:
    buffer = ReplayBuffer.open(push, mode="a")
    buffer.update_attrs({"provenance": {**buffer.attrs["provenance"], "control_hz": 5}})
    assert main([str(push), "--video", str(tmp_path / "a.mp4")]) == 0
    assert len(frames_of(tmp_path / "a.mp4", 290, 532)) == 6 + 8  # as with --fps 5: the last step stands 1.5 s


def test_inspect_env_names_the_environment_that_draws(push: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.zarr"
    with ReplayBuffer.open(push) as buffer, ReplayBuffer.create(bare) as copy:
        copy.add_episode(buffer.get_episode(0))
    words = [str(bare), "--picture", str(tmp_path / "a.png")]
    assert main(words) == 2
    assert main([*words, "--env", "diffusion_policy_envs:PushT-v0"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no picture possible: expected a key of images"),
        (["--env", "CartPole-v1"], "its CartPoleEnv has no picture(obs, size)"),
        (["--env", "diffusion_policy_envs:PushT-v0"], "must hold state, or keypoints and agent_pos"),
        (["--env", "diffusion_policy_envs:Pusht-v0"], "PushT-v0"),
        (["--fps", "0"], "--fps must be above 0, but got 0"),
        (["--episodes", "0"], "1 or more episodes to show, but got 0"),
    ],
)
def test_inspect_says_why_there_is_nothing_to_show(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr")
    episode = {"action": np.zeros((5, 2)), "keypoints": np.zeros((5, 9, 2))}
    buffer.add_episode(episode if "--episodes" not in words else {**episode, "img": np.zeros((5, 8, 8, 3), np.uint8)})
    for option, name in (("--video", "a.mp4"), ("--picture", "a.png")):
        assert main([str(tmp_path / "demos.zarr"), option, str(tmp_path / name), *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["demos.zarr"]


def test_inspect_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    assert "dp-inspect demos.zarr --video demos.mp4" in capsys.readouterr().out


def test_inspect_shortens_long_lists_of_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attrs = {"provenance": {"seeds": list(range(5, 445)), "few": [3, 1, 2], "odd": [9, *range(20)]}}
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr", attrs=attrs)
    buffer.add_episode({"action": np.zeros((4, 2), np.float32)})
    assert main([str(tmp_path / "demos.zarr")]) == 0
    out = capsys.readouterr().out
    assert "  seeds  5 to 444\n  few    3, 1, 2\n  odd    9, 0, 1, 2, 3, 4, 5, 6, ... 21 in all\n" in out


def test_inspect_prints_a_provenance_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [{"actor": "expert", "episodes": 3, "noise": None}, {"actor": "random", "episodes": 1, "cut": True}]
    attrs = {"provenance": {"env_id": "A-v0", "parts": parts, "bounds": [[-1.0, 0.5], [1.0, 2.5]], "renderer": None}}
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr", attrs=attrs)
    buffer.add_episode({"action": np.zeros((4, 2), np.float32)})
    assert main([str(tmp_path / "demos.zarr")]) == 0
    assert (
        "provenance\n"
        "  env_id    A-v0\n"
        "  parts     1. actor expert, episodes 3\n"
        "  parts     2. actor random, episodes 1, cut yes\n"
        "  bounds    [-1, 0.5], [1, 2.5]\n"
    ) in capsys.readouterr().out


def test_inspect_warnings_leave_the_exit_code_at_0_and_say_what_to_do(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr")
    for _ in range(3):
        buffer.add_episode({"action": np.cumsum(np.repeat(rng.normal(size=(30, 2)), [12] + [1] * 29, 0) * 0.1, axis=0)})
    still = np.concatenate([np.zeros((40, 2)), buffer.get_episode(0)["action"]])
    buffer.add_episode({"action": still - still[0]})
    place = str(tmp_path / "demos.zarr")
    assert main([place]) == 0
    out = capsys.readouterr().out
    assert "warning  episode 3 begins with 4" in out
    assert "effect: the policy learns that standing still is right" in out
    assert f"mend: dp-convert {place} mended.zarr --trim" in out
    assert "no problem found; 1 warning" in out


def test_inspect_report_is_one_page_with_its_findings_beside_it(demos: Path, tmp_path: Path) -> None:
    zarr.open_group(demos, mode="r+")["data/action"][14, 0] = np.nan
    page = tmp_path / "new" / "report.html"
    assert main([str(demos), "--report", str(page)]) == 1
    text = page.read_text(encoding="utf-8")
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "report.json"}
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    pictures = [base64.b64decode(each) for each in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
    sizes = [Image.open(io.BytesIO(each)).size for each in pictures]
    assert sizes.count((16, 16)) == 6  # first, middle and last step of two episodes
    assert len(sizes) > 6
    told = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    (finding,) = [each for each in told["findings"] if each["severity"] == "problem" and each["name"] == "not-finite"]
    assert (finding["key"], finding["episodes"]) == ("action", [1])
    assert finding["what"] in text
    assert told["counts"]["problem"] == len([each for each in told["findings"] if each["severity"] == "problem"])
    assert "seed  7" in text


def test_inspect_report_escapes_what_the_data_say(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create(tmp_path / "demos.zarr", attrs={"task": "<script>alert(1)</script>"})
    buffer.add_episode({"action": np.zeros((4, 2), np.float32)})
    assert main([str(tmp_path / "demos.zarr"), "--report", str(tmp_path / "a.html")]) == 0
    assert "<script>" not in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert main([str(tmp_path / "demos.zarr"), "--report", str(tmp_path / "a.html")]) == 2


@pytest.fixture
def hopper(tmp_path: Path) -> Path:
    settings = {"steps": 300, "seed": 0, "keep": "all", "progress": False}
    collect("Hopper-v5", [RandomActor(), NoisyActor(RandomActor(), 0.5)], out=tmp_path / "hopper.zarr", **settings)
    return tmp_path / "hopper.zarr"


def test_inspect_tells_the_return_of_each_part_on_the_labelled_scale(hopper: Path, capsys) -> None:
    assert main([str(hopper)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("return ")]
    means = [part["mean_return"] for part in ReplayBuffer.open(hopper).attrs["provenance"]["parts"]]
    scores = [100 * (mean + 20.272305) / 3254.572305 for mean in means]
    assert lines == [
        f"return   {mean:.1f} (normalised {score:.1f}, D4RL reference, env v5), mean of {name}"
        for mean, score, name in zip(means, scores, ("random", "random, noise 0.5"), strict=True)
    ]


def test_inspect_physics_steps_the_simulator(hopper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(hopper), "--physics"]) == 0
    out = capsys.readouterr().out
    assert "observation[10]" in out
    assert "steps: 100.0% exact (within 0.0001 std), 100.0% close (0.01)" in out


def test_inspect_physics_exits_1_when_the_simulator_disagrees(hopper: Path, capsys) -> None:
    noise = np.random.default_rng(0).normal(size=(600, 11)).astype(np.float32)
    with ReplayBuffer.open(hopper) as buffer, ReplayBuffer.create(hopper.with_name("noise.zarr")) as copy:
        for i in range(buffer.num_episodes):
            copy.add_episode(buffer.get_episode(i) | {"observation": noise[buffer.episode_slice(i)]})
    words = [str(hopper.with_name("noise.zarr")), "--physics"]
    assert main([*words, "--env", "Hopper-v5"]) == 1
    assert "problem  the simulator does not do what the data say" in capsys.readouterr().out
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "its provenance names no environment; give one with --env ID" in captured.err
    assert captured.err.count("error: ") == 1


@pytest.mark.parametrize("known_from", ["provenance", "environment", "--env"])
def test_inspect_finds_actions_outside_the_bounds(hopper: Path, known_from: str, capsys) -> None:
    kept = {
        "provenance": {"action_bounds": [[-1] * 3, [1] * 3]},
        "environment": {"env_id": "Hopper-v5"},
        "--env": {"by": "hand"},
    }[known_from]
    place = hopper.with_name("wild.zarr")
    with ReplayBuffer.open(hopper) as buffer, ReplayBuffer.create(place, attrs={"provenance": kept}) as copy:
        for i in range(buffer.num_episodes):
            copy.add_episode(buffer.get_episode(i) | {"action": 1.5 * buffer.get_episode(i)["action"]})
    assert main([str(place), *(["--env", "Hopper-v5"] if known_from == "--env" else [])]) == 1
    assert "action: 3 of 3 numbers lie outside their bounds" in capsys.readouterr().out
