"""What offline RL must be able to believe of a data set: where an episode ended for good, and where it was only cut.

Letters: N steps of all episodes, M episodes.
"""

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy.data.episodes import lengths

_ENOUGH = 3  # terminated episodes; one or two of the same length are no pattern


def constant_length_terminals(episode_ends: ArrayLike, terminated: ArrayLike) -> int | None:
    """Returns the length at which all terminated episodes end, if that betrays a time limit stored as termination.

    Real terminations (a fall, a success) come at many lengths. When every terminated episode is exactly as long as
    the longest of the data set, a limit cut them; a critic would learn that the world ends there.

    Args:
        episode_ends: (M,) exclusive, cumulative.
        terminated: (N,) per step; only the last step of an episode counts.

    Returns:
        The length in steps; None where there are fewer than three terminated episodes, or they differ in length, or
        others are longer.
    """
    ends = np.asarray(episode_ends, np.int64)
    steps = lengths(ends)
    ended = steps[np.asarray(terminated, bool)[ends - 1]] if len(ends) else steps
    if len(ended) < _ENOUGH or (ended != steps.max()).any():
        return None
    return int(ended[0])


def terminations_inside(episode_ends: ArrayLike, terminated: ArrayLike) -> int:
    """Returns how many steps claim to end an episode that goes on after them.

    Args:
        episode_ends: (M,) exclusive, cumulative.
        terminated: (N,) per step; `truncated` can be counted likewise.
    """
    inside = np.asarray(terminated, bool).copy()
    inside[np.asarray(episode_ends, np.int64) - 1] = False
    return int(inside.sum())
