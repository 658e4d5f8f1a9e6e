"""Which OpenGL MuJoCo uses, chosen before its first import, and whether that OpenGL can draw.

Every module of this package takes MuJoCo from here (`from diffusion_policy_envs.gl import mujoco`), so that the choice
always comes first: MuJoCo reads MUJOCO_GL once, while it is being imported.
"""

import ctypes.util
import functools
import os
import subprocess
import sys

__all__ = ["INSTALL_HINT", "choose_gl", "can_draw", "mujoco"]

INSTALL_HINT = "install a software GL (Debian: libegl1 libgl1-mesa-dri, or libosmesa6) and leave MUJOCO_GL unset"

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 8, 8) as renderer:
    renderer.update_scene(data)
    renderer.render()
"""


def choose_gl() -> str:
    """Returns MUJOCO_GL, after setting it where it is unset and there is no display.

    MuJoCo's own default needs a display; and with MUJOCO_GL=egl, but no libEGL, `import mujoco` itself fails. So a
    library is named only if it can be found. Once MuJoCo is imported its GL is fixed: naming another would make the
    probe of `can_draw` try one that this process does not use.
    """
    if "mujoco" in sys.modules:
        return os.environ.get("MUJOCO_GL", "")
    headless = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if headless and not os.environ.get("MUJOCO_GL"):
        found = [name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)]
        os.environ["MUJOCO_GL"] = found[0] if found else "disable"
    return os.environ.get("MUJOCO_GL", "")


choose_gl()
try:
    import mujoco as mujoco
except Exception as error:  # a missing GL library surfaces as AttributeError, OSError or RuntimeError
    if isinstance(error, ModuleNotFoundError) or not os.environ.get("MUJOCO_GL"):
        raise
    raise ImportError(
        f"MuJoCo must be importable, but with MUJOCO_GL={os.environ['MUJOCO_GL']} it raised {error!r}; {INSTALL_HINT}, "
        "or set MUJOCO_GL=disable to go without its pictures"
    ) from error


@functools.cache
def can_draw(timeout_s: float = 120.0) -> bool:
    """Returns whether MuJoCo can draw a frame here: it draws one in a process of its own, once.

    A broken GL does not always raise: some drivers abort the process, which only another process survives.
    """
    if os.environ.get("MUJOCO_GL", "").lower() in {"disable", "disabled", "off", "false", "0"}:
        return False
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0
