"""Pictures of Push-T boards in any state, by MuJoCo or as a flat drawing."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs import gl
from diffusion_policy_envs.pusht.drawing import draw_board
from diffusion_policy_envs.pusht.geometry import Floats
from diffusion_policy_envs.pusht.physics import PushTPhysics
from diffusion_policy_envs.rendering import MujocoRenderer

__all__ = ["CAMERAS", "RENDERERS", "BoardPictures"]

RENDERERS = ("mujoco", "draw2d")
CAMERAS = ("top", "tilted")


class BoardPictures:
    """Draws states on a board of its own, so that nothing of a running episode changes.

    Args:
        renderer: `mujoco`, `draw2d`, or None: MuJoCo where it can draw.
    """

    def __init__(self, renderer: str | None = None) -> None:
        self._wanted = renderer
        self._scenes: dict[str, MujocoRenderer] = {}

    @cached_property
    def renderer(self) -> str:
        """Which one draws: `mujoco` or `draw2d`; whether MuJoCo can is tried out when first asked."""
        return self._wanted or ("mujoco" if gl.can_draw() else "draw2d")

    def draw(self, state: Floats, size: int, camera: str = "top") -> NDArray[np.uint8]:
        """Returns a picture (size, size, 3), uint8.

        Args:
            state: (5,): agent x, y, block x, y in px, angle in rad.
            size: height and width, px.
            camera: one of `CAMERAS`.

        Raises:
            RuntimeError: the flat drawing shows the board from above only.
        """
        if self.renderer == "draw2d":
            if camera != "top":
                raise RuntimeError(f"camera '{camera}' needs MuJoCo's pictures, but got draw2d; {gl.INSTALL_HINT}")
            return draw_board(state, size)
        self._board.set_state(state)
        picture = self._scene(camera).draw(size)
        # MuJoCo's y points away from the viewer, the board's towards: one axis of each picture is turned
        return np.ascontiguousarray(picture[::-1] if camera == "top" else picture[:, ::-1])

    def close(self) -> None:
        """Frees the GL contexts; further pictures make new ones."""
        while self._scenes:
            self._scenes.popitem()[1].close()

    @cached_property
    def _board(self) -> PushTPhysics:
        return PushTPhysics()

    def _scene(self, camera: str) -> MujocoRenderer:
        if camera not in self._scenes:
            self._scenes[camera] = MujocoRenderer(self._board.model, self._board.data, camera)
        return self._scenes[camera]
