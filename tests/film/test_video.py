import gc
import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from diffusion_policy.errors import ConfigError, RenderError, StorageError
from diffusion_policy.film.video import VideoGrid, save_video

GREEN, RED, GREY = np.eye(3)[1], np.eye(3)[0], np.zeros(3)


def picture(value, height=40, width=60):
    return np.full((height, width, 3), value, np.uint8)


def filmed(lengths, successes, tile=60):
    """A grid of episodes; frame t of episode i is flat with the value 10 * i + t."""
    grid = VideoGrid(episodes=len(lengths), tile=tile, fps=10)
    for episode, (length, success) in enumerate(zip(lengths, successes, strict=True)):
        for time in range(length):
            grid.add(episode, picture(10 * episode + time), seed=100 + episode, max_reward=time / 10)
        grid.finish(episode, success)
    return grid


def tiles(frame, columns, rows):
    """The tiles of a grid, row by row."""
    height, width = frame.shape[0] // rows, frame.shape[1] // columns
    return [frame[y * height :, x * width :][:height, :width] for y in range(rows) for x in range(columns)]


def centre(tile):
    return tile[(tile.shape[0] + 18) // 2, tile.shape[1] // 2, 0]


def border(tile):
    """Returns red, green or nothing (grey), as the border's strongest colour."""
    r, g, _ = tile[-1, 0].astype(int)
    return GREEN if g > r + 50 else RED if r > g + 50 else GREY


def decoded(path):
    """Returns what ffmpeg says about the stream, and the frames."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    stream = next(line for line in done.stderr.decode().splitlines() if "Video:" in line)
    width, height = map(int, re.search(r", (\d+)x(\d+)", stream).groups())
    return stream, np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def test_grid_shows_each_episode_at_its_place_and_holds_its_last_frame():
    frames = list(filmed([2, 4, 3], [True, False, None]).frames())
    assert len(frames) == 4 + 15  # the longest, then 1.5 s
    for time, frame in enumerate(frames):
        shown = [centre(tile) for tile in tiles(frame, columns=2, rows=2)[:3]]
        assert shown == [min(time, 1), 10 + min(time, 3), 20 + min(time, 2)]


def test_grid_borders_are_grey_while_running_then_tell_the_outcome():
    frames = list(filmed([2, 4, 3], [True, False, None]).frames())
    first, second, third = zip(*(map(border, tiles(frame, 2, 2)[:3]) for frame in frames[:5]), strict=True)
    np.testing.assert_array_equal(first, [GREY, GREEN, GREEN, GREEN, GREEN])
    np.testing.assert_array_equal(second, [GREY, GREY, GREY, RED, RED])
    np.testing.assert_array_equal(third, [GREY] * 5)


@pytest.mark.parametrize(("episodes", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (16, 4, 4)])
def test_grid_is_as_square_as_it_gets(episodes, columns, rows):
    grid = filmed([1] * episodes, [True] * episodes, tile=30)
    assert next(grid.frames()).shape == (rows * (20 + 8 + 18), columns * (30 + 8), 3)


def test_grid_wants_the_first_episodes_only():
    assert [episode for episode in range(-2, 6) if VideoGrid(episodes=3).wants(episode)] == [0, 1, 2]


def test_grid_keeps_frames_losslessly_but_compressed():
    grid = VideoGrid(episodes=1, tile=192)
    scene = np.zeros((192, 192, 3), np.uint8)
    scene[50:90, 30:120] = 200
    for _ in range(100):
        grid.add(0, scene, seed=0, max_reward=0.0)
    held = grid._tiles[0].frames
    assert sum(map(len, held)) < scene.nbytes  # a hundred frames in less than one
    shown = next(grid.frames())
    np.testing.assert_array_equal(shown[4 + 18 : -4, 4:-4], scene)


@pytest.mark.parametrize(
    "frame", [None, np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)]
)
def test_grid_refuses_what_is_no_picture(frame):
    with pytest.raises(RenderError, match=r"\(height, width, 3\) uint8"):
        VideoGrid().add(0, frame, seed=0, max_reward=0.0)


def test_grid_without_frames_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing was filmed"):
        VideoGrid().save(tmp_path / "film.mp4")
    with pytest.raises(ConfigError, match="episodes >= 1"):
        VideoGrid(episodes=0)


def test_video_decodes_to_what_was_written(tmp_path):
    frames = [picture(20 * time, 64, 96) for time in range(10)]
    save_video(iter(frames), tmp_path / "new" / "film.mp4", fps=5)
    stream, shown = decoded(tmp_path / "new" / "film.mp4")
    assert all(part in stream for part in ("h264", "yuv420p", "96x64", " 5 fps"))
    assert len(shown) == 10
    np.testing.assert_allclose([frame.mean() for frame in shown], np.arange(10) * 20, atol=4)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["film.mp4"]
    gc.collect()  # an encoder left open would warn here, and warnings are errors


def test_video_of_odd_size_is_cut_to_even(tmp_path):
    save_video([picture(9, 65, 97)] * 3, tmp_path / "film.mp4", fps=10)
    assert decoded(tmp_path / "film.mp4")[1].shape == (3, 64, 96, 3)


def test_video_that_fails_leaves_the_older_one_and_no_rest(tmp_path):
    def broken():
        yield picture(0)
        raise RuntimeError("renderer died")

    (tmp_path / "film.mp4").write_bytes(b"older")
    with pytest.raises(RuntimeError, match="renderer died"):
        save_video(broken(), tmp_path / "film.mp4", fps=10)
    assert (tmp_path / "film.mp4").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ConfigError, match="no frames"):
        save_video([], tmp_path / "none.mp4", fps=10)
    with pytest.raises(StorageError, match="could not write"):
        save_video([picture(0)], tmp_path / "film.mp4" / "film.mp4", fps=10)
