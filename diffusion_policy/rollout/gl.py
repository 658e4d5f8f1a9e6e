"""Which OpenGL MuJoCo shall use, decided before its first import: afterwards it is too late.

The environments' package makes the same choice by the same few lines, so that either works alone.
"""

import os
import sys
from ctypes.util import find_library


def choose_gl() -> str | None:
    """Sets MUJOCO_GL where nobody has, on Linux machines without a display; returns what it is now.

    MUJOCO_GL=egl without libEGL kills `import mujoco` itself, and an unset one fails at the first frame: so egl
    only where its library is found, else osmesa, else "disable" (physics without pictures).
    """
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    undecided = not os.environ.get("MUJOCO_GL") and "mujoco" not in sys.modules  # once imported, it has chosen
    if undecided and sys.platform == "linux" and not has_display:
        found = (name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if find_library(library))
        os.environ["MUJOCO_GL"] = next(found, "disable")
    return os.environ.get("MUJOCO_GL")
