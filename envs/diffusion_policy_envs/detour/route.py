"""Which way round the pillars an agent goes, in letters: L and R, one for each row that it has passed."""

from diffusion_policy_envs.detour.geometry import NUM_ROWS, ROW_Y, gap_at, pillar_x, rows_passed

__all__ = ["UNKNOWN", "Route"]

UNKNOWN = "?"  # the letter of a row that was passed before the episode began


class Route:
    """Follows an agent past the rows.

    In each row one pillar stands in its way: the one before the gap through which it passed the row before. The letter
    says on which side of that pillar it passes. An agent that goes back behind a row takes its letter back.

    Args:
        x: m, where the agent is.
        y: m.
        letters: of the rows behind that place, where they are known.

    Raises:
        ValueError: the letters do not lead to that place.
    """

    def __init__(self, x: float, y: float, letters: str | None = None) -> None:
        passed = rows_passed(y)
        self._letters = [UNKNOWN] * passed if letters is None else list(letters)
        self._gaps = [gap_at(row, x) for row in range(passed)]  # of rows before the last nobody asks
        if letters is not None:
            fits = len(letters) == passed and set(letters) <= set("LR")
            if not fits or (passed and self._gaps[-1] != letters.count("R")):
                raise ValueError(
                    f"options['route'] must be {passed} letters L and R that lead to ({x:.3f}, {y:.3f}), one for each "
                    f"row behind it, but got {letters!r}; leave it out where it is unknown"
                )
            self._gaps = [letters[: row + 1].count("R") for row in range(passed)]

    def advance(self, x: float, y: float) -> None:
        """Takes note of the agent's next place, m, which is near the last one."""
        row = len(self._gaps)
        if row < NUM_ROWS and y >= ROW_Y[row]:
            pillar = self._gaps[-1] if self._gaps else 0
            self._letters.append("L" if x < pillar_x(row, pillar) else "R")
            self._gaps.append(gap_at(row, x))
        elif row and y < ROW_Y[row - 1]:
            self._letters.pop()
            self._gaps.pop()

    @property
    def letters(self) -> str:
        """One for each row behind the agent, the first row's first."""
        return "".join(self._letters)

    @property
    def behavior(self) -> str:
        """The letters once all rows are behind the agent and known, else nothing."""
        return self.letters if len(self._letters) == NUM_ROWS and UNKNOWN not in self._letters else ""
