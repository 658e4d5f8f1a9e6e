"""Pictures of the table in any state, and where points of it lie on them."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs import gl
from diffusion_policy_envs.gl import mujoco
from diffusion_policy_envs.gripper.scene import Floats, GripperScene
from diffusion_policy_envs.rendering import MujocoRenderer

__all__ = ["ScenePictures"]


class ScenePictures:
    """Draws states on a table of its own, so that nothing of a running episode changes.

    Args:
        make_scene: returns a table.
    """

    def __init__(self, make_scene: Callable[[], GripperScene]) -> None:
        self._make_scene = make_scene
        self._renderers: dict[str, MujocoRenderer] = {}

    @cached_property
    def scene(self) -> GripperScene:
        """The table that is drawn; it stands as it was last set."""
        return self._make_scene()

    def draw(self, state: ArrayLike, size: int, camera: str) -> NDArray[np.uint8]:
        """Returns a picture (size, size, 3), uint8.

        Args:
            state: as `GripperScene` has it.
            size: height and width, px.
            camera: its name in the XML.

        Raises:
            RuntimeError: OpenGL does not work here.
        """
        if not gl.can_draw():
            raise RuntimeError(
                f"a picture of camera '{camera}' needs OpenGL, but it does not work here; {gl.INSTALL_HINT}"
            )
        self.scene.set_state(state)
        if camera not in self._renderers:
            self._renderers[camera] = MujocoRenderer(self.scene.model, self.scene.data, camera)
        return self._renderers[camera].draw(size)

    def pixels(self, points: ArrayLike, size: int, camera: str) -> Floats:
        """Returns where points (K, 3), m, lie on a picture of a camera that stands still: (K, 2), x and y in its px.

        (0, 0) is the outer corner of the first pixel, (size, size) that of the last.
        """
        seen_by = self.scene.model.camera(camera)
        axes = np.empty(9)
        mujoco.mju_quat2Mat(axes, seen_by.quat)  # columns: right, up, towards the viewer
        seen = (np.asarray(points, np.float64).reshape(-1, 3) - seen_by.pos) @ axes.reshape(3, 3)  # (K, 3)
        scale = 0.5 / np.tan(0.5 * np.deg2rad(seen_by.fovy[0]))
        across = seen[:, :2] / -seen[:, 2:] * scale  # of the picture's height, from its middle
        return np.asarray(size * (0.5 + across * [1.0, -1.0]))

    def close(self) -> None:
        """Frees the GL contexts; further pictures make new ones."""
        while self._renderers:
            self._renderers.popitem()[1].close()
