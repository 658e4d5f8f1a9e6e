"""Pictures of a flat board in any state, by MuJoCo or as a drawing."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs import gl
from diffusion_policy_envs.rendering import MujocoRenderer

__all__ = ["RENDERERS", "Board", "BoardPictures", "Picture"]

RENDERERS = ("mujoco", "draw2d")

Picture = NDArray[np.uint8]


class Board(Protocol):
    """A simulated board that can be set to a state."""

    @property
    def model(self) -> gl.mujoco.MjModel:
        """The MuJoCo model."""

    @property
    def data(self) -> gl.mujoco.MjData:
        """Its state."""

    def set_state(self, state: ArrayLike) -> None:
        """Starts anew from a state."""


class BoardPictures:
    """Draws states on a board of its own, so that nothing of a running episode changes.

    Args:
        renderer: `mujoco`, `draw2d`, or None: MuJoCo where it can draw.
        make_board: makes the board; called when MuJoCo draws its first picture.
        drawing: (state, size) -> the picture from above (size, size, 3), without MuJoCo.
        cameras: {camera: how its picture is turned to how people look at the board}; `top` is one of them.
    """

    def __init__(
        self,
        renderer: str | None,
        make_board: Callable[[], Board],
        drawing: Callable[[NDArray[np.float64], int], Picture],
        cameras: Mapping[str, Callable[[Picture], Picture]],
    ) -> None:
        self._wanted = renderer
        self._make_board = make_board
        self._drawing = drawing
        self._cameras = cameras
        self._scenes: dict[str, MujocoRenderer] = {}

    @cached_property
    def renderer(self) -> str:
        """Which one draws: `mujoco` or `draw2d`; whether MuJoCo can is tried out when first asked."""
        return self._wanted or ("mujoco" if gl.can_draw() else "draw2d")

    def draw(self, state: NDArray[np.float64], size: int, camera: str = "top") -> Picture:
        """Returns a picture (size, size, 3), uint8.

        Args:
            state: what the board's `set_state` takes.
            size: height and width, px.
            camera: one of `cameras`.

        Raises:
            RuntimeError: the flat drawing shows the board from above only.
        """
        if self.renderer == "draw2d":
            if camera != "top":
                raise RuntimeError(f"camera '{camera}' needs MuJoCo's pictures, but got draw2d; {gl.INSTALL_HINT}")
            return self._drawing(state, size)
        self._board.set_state(state)
        return np.ascontiguousarray(self._cameras[camera](self._scene(camera).draw(size)))

    def close(self) -> None:
        """Frees the GL contexts; further pictures make new ones."""
        while self._scenes:
            self._scenes.popitem()[1].close()

    @cached_property
    def _board(self) -> Board:
        return self._make_board()

    def _scene(self, camera: str) -> MujocoRenderer:
        if camera not in self._scenes:
            self._scenes[camera] = MujocoRenderer(self._board.model, self._board.data, camera)
        return self._scenes[camera]
