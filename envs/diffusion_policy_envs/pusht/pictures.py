"""Pictures of Push-T boards in any state: from above, and from a corner."""

import numpy as np

from diffusion_policy_envs.board_pictures import BoardPictures
from diffusion_policy_envs.pusht.drawing import draw_board
from diffusion_policy_envs.pusht.physics import PushTPhysics

__all__ = ["make_pictures"]

# MuJoCo's y points away from the viewer, the board's towards: one axis of each picture is turned.
_CAMERAS = {"top": np.flipud, "tilted": np.fliplr}


def make_pictures(renderer: str | None = None) -> BoardPictures:
    """Returns what draws states (5,) of the board, agent x, y, block x, y in px and angle in rad.

    Args:
        renderer: `mujoco`, `draw2d`, or None: MuJoCo where it can draw.
    """
    return BoardPictures(renderer, PushTPhysics, draw_board, _CAMERAS)
