"""What poses of the block are worth to a search for the quickest pushes: how far they are from the goal, in seconds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.experts.push_model import MOMENT, center_pose, origin_pose
from diffusion_policy_envs.pusht.geometry import BLOCK_OUTLINE, CENTER_OF_MASS, GOAL_POSE, Floats, coverage, wrap_angle

__all__ = ["GOAL", "TimeToGo", "distance"]

GOAL = center_pose(GOAL_POSE)

_TIPS = (BLOCK_OUTLINE - CENTER_OF_MASS)[[0, 1, 4, 5]]  # ends of bar and stem
_WALLS = (12.0, 499.0)  # px: what the block shall stay between; the walls stand at 7 and 504
_SECONDS_PER_PX_OUTSIDE = 0.1
_CLOSE = 6.0  # px: farther from the goal than this, coverage is below 0.95


def distance(poses: Floats, others: Floats) -> Floats:
    """Returns how far apart (...), px, poses (..., 3) of the centre of mass are.

    A turn counts by its arc at the radius of gyration: by its chord, half a turn would be flat, and pushes that begin
    to undo it worthless.
    """
    offset = poses[..., :2] - others[..., :2]
    turn = MOMENT * wrap_angle(poses[..., 2] - others[..., 2]) ** 2
    return np.asarray(np.sqrt(np.sum(offset**2, axis=-1) + turn))


@dataclass(frozen=True)
class TimeToGo:
    """An estimate of the seconds that a pose still costs.

    Attributes:
        least: s, what any pose costs that does not solve the task: another way round the block and another push.
        per_px: s/px, what its distance from the goal costs beside that.
        coverage: the coverage that counts as solved, above the task's own for safety.
    """

    least: float = 4.0
    per_px: float = 0.06
    coverage: float = 0.965

    def solved(self, poses: Floats) -> NDArray[np.bool_]:
        """Returns which poses (..., 3) solve the task."""
        solved = distance(poses, GOAL) < _CLOSE
        solved[solved] = coverage(origin_pose(poses[solved])) > self.coverage
        return solved

    def seconds(self, poses: Floats, solved: NDArray[np.bool_]) -> Floats:
        """Returns the seconds (...) that poses (..., 3) still cost, zero where solved; too near a wall costs more."""
        seconds = self.least + self.per_px * distance(poses, GOAL)
        return np.asarray(np.where(solved, 0.0, seconds) + _SECONDS_PER_PX_OUTSIDE * _outside(poses))


def _outside(poses: Floats) -> Floats:
    """Returns by how many px (...) the block's tips stand beyond the walls, summed."""
    cos, sin = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    outside = np.zeros(poses.shape[:-1])
    for tip_x, tip_y in _TIPS:
        for along in (poses[..., 0] + cos * tip_x - sin * tip_y, poses[..., 1] + sin * tip_x + cos * tip_y):
            outside += np.maximum(_WALLS[0] - along, 0.0) + np.maximum(along - _WALLS[1], 0.0)
    return outside
