"""The table of Detour: where pillars, start and finish line are, and how many rows a place has behind it.

Lengths are metres; x is zero on the middle line and points right, y is zero at the near edge and points to the finish.
Rows count from 0 and row k has k + 1 pillars, numbered from the left; so has it k + 2 gaps.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AGENT_RADIUS",
    "BEHAVIORS",
    "FINISH_Y",
    "HALF_WIDTH",
    "LENGTH",
    "NUM_ROWS",
    "PILLARS",
    "PILLAR_RADIUS",
    "ROW_Y",
    "SPACING",
    "START",
    "START_SPREAD",
    "VIEW",
    "Floats",
    "ahead",
    "gap_at",
    "gap_x",
    "pillar_x",
    "rows_passed",
]

Floats = NDArray[np.float64]

HALF_WIDTH, LENGTH = 0.5, 1.2  # of the table; its edges are walls
AGENT_RADIUS, PILLAR_RADIUS = 0.02, 0.025
SPACING = 0.21  # between neighbours in a row: the gaps are 0.16 wide
ROW_Y = (0.34, 0.54, 0.74, 0.94)
NUM_ROWS = len(ROW_Y)
START = (0.0, 0.1)
START_SPREAD = 0.01
FINISH_Y = 1.1

# What pictures show: a square of this width round the middle of the table.
VIEW = 1.24

BEHAVIORS = tuple("".join(letters) for letters in itertools.product("LR", repeat=NUM_ROWS))


def pillar_x(row: int, pillar: int) -> float:
    """Returns where a pillar stands: before the gap of the same number of the row before, in the middle of it."""
    return (pillar - row / 2) * SPACING


def gap_x(row: int, gap: int) -> float:
    """Returns the middle of a gap of a row; gaps 0 and row + 1 lie outside the pillars."""
    return (gap - (row + 1) / 2) * SPACING


def gap_at(row: int, x: float) -> int:
    """Returns the gap of a row in which x lies: how many of its pillars stand left of x, or at x."""
    return sum(pillar_x(row, pillar) <= x for pillar in range(row + 1))


def ahead(x: float, y: float) -> Floats:
    """Returns where, from a place, the nearest pillar of the next row is, (2,); behind all rows, the finish line."""
    row = rows_passed(y)
    if row == NUM_ROWS:
        return np.array([0.0, FINISH_Y - y])
    nearest = min((pillar_x(row, pillar) - x for pillar in range(row + 1)), key=abs)
    return np.array([nearest, ROW_Y[row] - y])


def rows_passed(y: float) -> int:
    """Returns how many rows lie behind y."""
    return sum(y >= row_y for row_y in ROW_Y)


PILLARS = np.array([(pillar_x(row, i), ROW_Y[row]) for row in range(NUM_ROWS) for i in range(row + 1)])  # (10, 2)
