"""Pictures of Push-T boards in any state, by MuJoCo or as a flat drawing."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs import gl
from diffusion_policy_envs.pusht.drawing import draw_board
from diffusion_policy_envs.pusht.geometry import Floats
from diffusion_policy_envs.pusht.physics import PushTPhysics
from diffusion_policy_envs.rendering import MujocoRenderer

__all__ = ["RENDERERS", "BoardPictures"]

RENDERERS = ("mujoco", "draw2d")


class BoardPictures:
    """Draws states on a board of its own, so that nothing of a running episode changes.

    Args:
        renderer: `mujoco`, `draw2d`, or None: MuJoCo where it can draw.
    """

    def __init__(self, renderer: str | None = None) -> None:
        self._wanted = renderer

    @cached_property
    def renderer(self) -> str:
        """Which one draws: `mujoco` or `draw2d`; whether MuJoCo can is tried out when first asked."""
        return self._wanted or ("mujoco" if gl.can_draw() else "draw2d")

    def draw(self, state: Floats, size: int) -> NDArray[np.uint8]:
        """Returns a picture (size, size, 3), uint8, of a state (5,): agent x, y, block x, y in px, angle in rad."""
        if self.renderer == "draw2d":
            return draw_board(state, size)
        self._board.set_state(state)
        return self._scene.draw(size)[::-1].copy()  # the camera sees y upwards

    def close(self) -> None:
        """Frees the GL contexts; further pictures make new ones."""
        if "_scene" in self.__dict__:
            self._scene.close()

    @cached_property
    def _board(self) -> PushTPhysics:
        return PushTPhysics()

    @cached_property
    def _scene(self) -> MujocoRenderer:
        return MujocoRenderer(self._board.model, self._board.data, camera="top")
