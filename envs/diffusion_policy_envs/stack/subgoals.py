"""What it means that a cube stands on its block, and in which order that came about."""

import numpy as np

from diffusion_policy_envs.gripper.scene import CUBE_HALF, Floats, GripperScene

__all__ = ["BASE_HEIGHT", "COLOURS", "TOLERANCE", "ReachedSubgoals", "place_of", "stacked"]

COLOURS = ("red", "blue")  # of cubes and blocks, in this order
BASE_HEIGHT = 0.04  # m, as in the XML
TOLERANCE = 0.025  # m, of the cube's centre from the block's, seen from above; a block is 6 cm wide
_SEATED = 0.004  # m: how much higher or lower than on the block a cube may be that stands there


def place_of(scene: GripperScene, cube: int) -> Floats:
    """Returns x, y, z (3,) of where a cube's centre belongs, m."""
    return np.array([*scene.place(cube), BASE_HEIGHT + CUBE_HALF])


def stacked(scene: GripperScene, cube: int) -> bool:
    """Returns whether a cube rests on the block of its colour and nothing of the gripper touches it."""
    gap = scene.cube_position(cube) - place_of(scene, cube)
    there = gap[:2] @ gap[:2] < TOLERANCE**2 and abs(gap[2]) < _SEATED
    return bool(there) and scene.rests(cube) and not scene.touched(cube)


class ReachedSubgoals:
    """Remembers which cubes have stood on their blocks in this episode, and in which order they first did."""

    def __init__(self) -> None:
        self._order: list[str] = []

    def forget(self) -> None:
        """Begins an episode."""
        self._order.clear()

    def see(self, standing: tuple[bool, ...]) -> None:
        """Takes note of which cubes stand on their blocks now, in the order of `COLOURS`."""
        pairs = zip(COLOURS, standing, strict=True)
        self._order += [colour for colour, stands in pairs if stands and colour not in self._order]

    @property
    def subgoals(self) -> dict[str, bool]:
        """{colour: reached so far}."""
        return {colour: colour in self._order for colour in COLOURS}

    @property
    def behavior(self) -> str:
        """The order, `red,blue` or `blue,red`; empty until both were reached."""
        return ",".join(self._order) if len(self._order) == len(COLOURS) else ""
