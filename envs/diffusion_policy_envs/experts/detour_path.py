"""Ways round the pillars: straight through the middle of a gap, then aside to the next, with rounded corners.

Ways through the same gap are the same until they part, a little before the pillar: nothing tells earlier which one it
will be.
"""

import numpy as np

from diffusion_policy_envs.detour.geometry import LENGTH, NUM_ROWS, ROW_Y, Floats, gap_at, gap_x, pillar_x, rows_passed

__all__ = ["SPLIT", "DetourPath", "corners"]

SPLIT = 0.14  # m before a row: ways left and right part here
_INTO_GAP = 0.03  # m before a row: the way aside ends here
_ROUNDING = 0.025  # m of either leg that a rounded corner takes
_SPACING = 0.002  # m between points of a way


def corners(start: Floats, route: str) -> Floats:
    """Returns the corner points (N, 2), m, of a route from a place to beyond the finish line.

    Args:
        start: (2,), m.
        route: one letter a row. Those behind the start are ignored, and where the agent is past the point at which
            ways part, it stays on its side.
    """
    x, y = float(start[0]), float(start[1])
    first = rows_passed(y)
    gap = gap_at(first - 1, x) if first else 0
    points = [(x, y)]
    for row in range(first, NUM_ROWS):
        ahead = pillar_x(row, gap)
        right = route[row] == "R"
        if y < ROW_Y[row] - SPLIT:
            points.append((ahead, ROW_Y[row] - SPLIT))
        else:
            right = x >= ahead
        gap += right
        x, y = gap_x(row, gap), max(y, ROW_Y[row] - _INTO_GAP)
        points.append((x, y))
    end = gap_x(NUM_ROWS - 1, gap_at(NUM_ROWS - 1, x))
    return np.array([*points, (end, max(y, LENGTH))])


class DetourPath:
    """A way with rounded corners, as points a step apart.

    Args:
        corner_points: (N, 2), m.
    """

    def __init__(self, corner_points: Floats) -> None:
        rounded = _rounded(corner_points)
        lengths = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(rounded, axis=0), axis=1)))
        along = np.arange(0.0, lengths[-1], _SPACING)
        self.points = np.stack([np.interp(along, lengths, rounded[:, i]) for i in range(2)], axis=-1)
        self._at = 0

    def ahead(self, place: Floats, lead: float) -> Floats:
        """Returns the point (2,), m, that lies `lead` m further along the way than the nearest to a place (2,), m.

        Called with one place after the other it never turns back.
        """
        near = self.points[self._at : self._at + round(0.15 / _SPACING)]
        self._at += int(np.argmin(np.sum((near - place) ** 2, axis=1)))
        return np.asarray(self.points[min(self._at + round(lead / _SPACING), len(self.points) - 1)])


def _rounded(corner_points: Floats) -> Floats:
    """Returns the points (M, 2) of the way, each corner replaced by a parabola that touches both legs."""
    t = np.linspace(0.0, 1.0, 9)[:, None]
    parts = [corner_points[:1]]
    for before, corner, after in zip(corner_points, corner_points[1:], corner_points[2:], strict=False):
        enter, leave = (corner + _ROUNDING * _unit(other - corner, 2 * _ROUNDING) for other in (before, after))
        parts.append((1 - t) ** 2 * enter + 2 * t * (1 - t) * corner + t**2 * leave)
    return np.concatenate([*parts, corner_points[-1:]])


def _unit(leg: Floats, shortest: float) -> Floats:
    """Returns the direction of a leg, shorter than a unit where less than half of a leg is left for the corner."""
    return np.asarray(leg / max(float(np.linalg.norm(leg)), shortest))
