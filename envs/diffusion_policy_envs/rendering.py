"""Square pictures of a MuJoCo scene, anti-aliased by drawing large and averaging.

Multisampling and shadows cost a software GL fifty times the frame itself; the models of this package turn both off.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_policy_envs.gl import mujoco

__all__ = ["MujocoRenderer"]

_MAX_DRAWN_PX = 1024


class MujocoRenderer:
    """Draws the scene seen by one fixed camera, at any size; keeps one GL context per size."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> None:
        self._model = model
        self._data = data
        self._camera = camera
        self._renderers: dict[int, mujoco.Renderer] = {}

    def draw(self, size: int) -> NDArray[np.uint8]:
        """Returns the scene as (size, size, 3), uint8, rows from the top of the camera's view."""
        factor = max(1, min(4, _MAX_DRAWN_PX // size))
        renderer = self._renderers.get(size)
        if renderer is None:
            renderer = mujoco.Renderer(self._model, size * factor, size * factor)
            self._renderers[size] = renderer
        # Positions of bodies and cameras follow from qpos; nothing that the next step reads is changed.
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        renderer.update_scene(self._data, camera=self._camera)
        picture = Image.fromarray(renderer.render())
        return np.array(picture.reduce(factor) if factor > 1 else picture)

    def close(self) -> None:
        """Frees the GL contexts."""
        while self._renderers:
            self._renderers.popitem()[1].close()
