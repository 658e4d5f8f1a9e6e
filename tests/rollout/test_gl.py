import os

import pytest

from diffusion_policy.rollout import gl


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that pretends to be a machine with these libraries and variables."""

    def pretend(libraries=(), platform="linux", **variables):
        for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(gl, "find_library", lambda name: name if name in libraries else None)
        monkeypatch.setattr(gl.sys, "platform", platform)
        monkeypatch.delitem(gl.sys.modules, "mujoco", raising=False)

    return pretend


@pytest.mark.parametrize(
    ("libraries", "expected"),
    [(("EGL", "OSMesa"), "egl"), (("EGL",), "egl"), (("OSMesa",), "osmesa"), ((), "disable")],
)
def test_choose_gl_takes_the_first_library_that_is_there(machine, libraries, expected):
    machine(libraries)
    assert gl.choose_gl() == expected == os.environ["MUJOCO_GL"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"MUJOCO_GL": "glfw"}, "glfw"),
        ({"DISPLAY": ":0"}, None),
        ({"WAYLAND_DISPLAY": "w"}, None),
        ({"platform": "darwin"}, None),
    ],
)
def test_choose_gl_leaves_people_and_displays_alone(machine, settings, expected):
    machine(("EGL",), **settings)
    assert gl.choose_gl() == expected


def test_choose_gl_comes_too_late_once_mujoco_is_imported(machine, monkeypatch):
    machine(("EGL",))
    monkeypatch.setitem(gl.sys.modules, "mujoco", gl)
    assert gl.choose_gl() is None
    assert "MUJOCO_GL" not in os.environ
