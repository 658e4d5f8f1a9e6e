"""Pictures: both renderers, the choice of GL, and the probe that survives a broken one."""

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import zarr

import diffusion_policy_envs
from diffusion_policy_envs import gl

ID = "diffusion_policy_envs:PushT-v0"
STATE = [120.0, 400.0, 300.0, 180.0, 2.0]
RENDERERS = ["draw2d", pytest.param("mujoco", marks=pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL"))]
HEADLESS = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(diffusion_policy_envs.__file__).parents[1])}


def picture(renderer: str, size: int, state: list[float] = STATE) -> np.ndarray:
    env = gym.make(ID, obs_keys=["image"], image_size=size, renderer=renderer)
    image = env.reset(options={"state": state})[0]["image"]
    assert env.unwrapped.renderer == renderer
    env.close()
    return image


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**HEADLESS, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("size", [96, 512])
def test_pictures_show_agent_block_and_goal_where_they_are(renderer: str, size: int) -> None:
    image = picture(renderer, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8

    def at(x: float, y: float) -> list[int]:  # y points down: it is the row
        return image[int(y * size / 512), int(x * size / 512)].tolist()

    assert at(120, 400) == pytest.approx([78, 126, 255], abs=4)
    stem = np.array([300, 180]) + 75 * np.array([-np.sin(2.0), np.cos(2.0)])
    assert at(*stem) == pytest.approx([143, 163, 184], abs=4)
    goal = 256 + 80 * np.array([-np.sin(np.pi / 4), np.cos(np.pi / 4)])
    assert at(*goal) == pytest.approx([144, 238, 144], abs=4)
    assert at(450, 450) == pytest.approx([255, 255, 255], abs=4)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_pictures_repeat_exactly(renderer: str) -> None:
    np.testing.assert_array_equal(picture(renderer, 96), picture(renderer, 96))


@pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL")
def test_both_renderers_draw_nearly_the_same() -> None:
    difference = picture("mujoco", 512).astype(int) - picture("draw2d", 512)
    assert np.mean(np.abs(difference)) < 1.0


@pytest.mark.parametrize("renderer", RENDERERS)
def test_pictures_resemble_the_recorded_ones(renderer: str, human_pusht: Path) -> None:
    root = zarr.open(human_pusht, mode="r")
    for i in (0, 60, 400):
        ours, theirs = picture(renderer, 96, root["data/state"][i].tolist()), root["data/img"][i]
        as_is = np.abs(ours - theirs).mean()
        assert as_is < 3.0
        assert as_is < 0.5 * np.abs(ours[::-1] - theirs).mean()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_render_returns_its_own_size_and_works_after_close(renderer: str) -> None:
    env = gym.make(ID, render_mode="rgb_array", render_size=128, renderer=renderer)
    env.reset(seed=0)
    first = env.render()
    env.unwrapped.close()
    assert np.asarray(first).shape == (128, 128, 3)
    np.testing.assert_array_equal(env.unwrapped.render(), first)


def test_importing_the_package_imports_no_mujoco() -> None:
    result = run_python("import sys, diffusion_policy_envs; print('mujoco' in sys.modules, 'shapely' in sys.modules)")
    assert result.stdout.split() == ["False", "False"], result.stderr


DRAW = (
    "import gymnasium as gym; e = gym.make('diffusion_policy_envs:PushT-v0', render_mode='rgb_array');"
    "e.reset(seed=0); print(e.unwrapped.renderer, e.render().shape)"
)


@pytest.mark.parametrize("mujoco_gl", ["disable", "glfw"])
def test_without_gl_the_drawing_serves(mujoco_gl: str) -> None:
    # glfw without a display is a GL that cannot draw: the probe has to find out, and to survive it.
    result = run_python(DRAW, MUJOCO_GL=mujoco_gl)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == "draw2d"


def test_mujoco_imported_first_without_gl_falls_back_to_the_drawing() -> None:
    result = run_python("import mujoco;" + DRAW)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == "draw2d"


def test_an_impossible_gl_is_explained() -> None:
    result = run_python(DRAW, MUJOCO_GL="nonsense")
    assert result.returncode != 0
    assert "MUJOCO_GL=nonsense" in result.stderr
    assert "leave MUJOCO_GL unset" in result.stderr


@pytest.mark.parametrize(("found", "chosen"), [({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa"), (set(), "disable")])
def test_gl_is_chosen_among_what_is_installed(found: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "mujoco")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so" if name in found else None)
    assert gl.choose_gl() == chosen


@pytest.mark.parametrize("name", ["MUJOCO_GL", "DISPLAY"])
def test_gl_is_left_alone_where_it_is_set_or_there_is_a_display(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delitem(sys.modules, "mujoco")
    monkeypatch.setenv(name, "glfw")
    assert gl.choose_gl() == ("glfw" if name == "MUJOCO_GL" else "")
