"""The finished cells of a benchmark, read back and put together.

Letters: M evaluation seeds, S training seeds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.benchmark.measures import MEASURES, MeasureName
from diffusion_policy.benchmark.suite import Cell
from diffusion_policy.errors import DataError, MissingFileError
from diffusion_policy.rollout.reference_scores import normalized_score
from diffusion_policy.rollout.statistics import Estimate, paired_difference, wilson_rate

FORMAT = 1
"""Of a cell's file."""


@dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Args:
        cell: which one.
        figures: the content of its file.
    """

    cell: Cell
    figures: Mapping[str, Any]

    def column(self, name: str, protocol: str = "last") -> list[float]:
        """Returns a figure of every episode (M,), e.g. "success".

        Empty where this checkpoint was not judged, or the environment does not tell it.
        """
        judged = self.figures["evaluations"].get(protocol) or {"per_episode": {}}
        if name == "normalized_return":
            scores = [normalized_score(judged["env_id"], value) for value in self.column("return", protocol)]
            return [] if None in scores else [float(value) for value in scores if value is not None]
        values = judged["per_episode"].get(name, [])
        return [] if any(value is None for value in values) else [float(value) for value in values]


class Results:
    """All finished cells in a folder.

    Args:
        cells: them.
    """

    def __init__(self, cells: Sequence[CellResult]) -> None:
        self.cells = list(cells)

    @classmethod
    def read(cls, out: Path) -> "Results":
        """Returns the cells whose files stand in out/cells.

        Raises:
            MissingFileError: there is none.
            DataError: a file is damaged, or of a newer format.
        """
        files = sorted((out / "cells").glob("*.json"))
        if not files:
            raise MissingFileError(
                f"{out}: no finished cell (expected {out / 'cells'}/*.json); run dp-benchmark out={out}"
            )
        return cls([read_cell(file) for file in files])

    def within(self, cells: Sequence[Cell]) -> "Results":
        """Returns those of certain cells only."""
        return Results([each for each in self.cells if each.cell in cells])

    def of(self, task: str, method: str) -> list[CellResult]:
        """Returns the cells of all training seeds, in their order."""
        found = [each for each in self.cells if (each.cell.task, each.cell.method) == (task, method)]
        return sorted(found, key=lambda each: each.cell.seed)

    def estimate(self, task: str, method: str, name: MeasureName, protocol: str = "last") -> Estimate | None:
        """Returns a measure over all episodes of all training seeds; None where nothing ran.

        Its interval takes episodes as independent: it does not know how much training seeds differ, which is why
        reports show them one by one.
        """
        values = [value for each in self.of(task, method) for value in each.column(name, protocol)]
        return MEASURES[name].estimate(values) if values else None

    def by_seed(self, task: str, method: str, name: str = "success", protocol: str = "last") -> dict[int, float]:
        """Returns {training seed: mean over its episodes}."""
        columns = {each.cell.seed: each.column(name, protocol) for each in self.of(task, method)}
        return {seed: float(np.mean(values)) for seed, values in columns.items() if values}

    def lead(self, task: str, first: str, second: str, name: str, protocol: str = "last") -> Estimate | None:
        """Returns by how much `first` is better than `second`, paired over evaluation seeds; None without both.

        A pair is the mean over training seeds of one evaluation seed's episodes (M,), so that the interval tells
        how much the choice of episodes matters.
        """
        sides = [[each.column(name, protocol) for each in self.of(task, method)] for method in (second, first)]
        sides = [[column for column in side if column] for side in sides]
        if not all(sides):
            return None
        lengths = {len(column) for side in sides for column in side}
        if len(lengths) != 1:
            raise DataError(
                f"{task}: {first} and {second} were judged on {sorted(lengths)} episodes; expected the same"
            )
        means = [np.mean(side, axis=0).tolist() for side in sides]  # (S, M) -> (M,)
        return paired_difference(*means)


def fallen_below(new: Results, stored: Results) -> list[str]:
    """Returns, for each cell that both have, where the new success lies below the stored one: intervals apart.

    Raises:
        DataError: they have no cell in common, or one that was made with other settings.
    """
    known = {each.cell: each for each in stored.cells}
    common = [each for each in new.cells if each.cell in known]
    if not common:
        raise DataError(f"against: no cell in common with the stored ones, {', '.join(c.name for c in known)}")
    said = []
    for each in common:
        for name in ("words", "judging"):
            now, then = each.figures[name], known[each.cell].figures[name]
            if now != then:
                raise DataError(
                    f"against: {each.cell.name} has other settings than the stored one: {differing(name, then, now)}"
                )
        rate, stored_rate = (_rate(side) for side in (each, known[each.cell]))
        if rate.ci95[1] < stored_rate.ci95[0]:
            said.append(f"{each.cell.name}: success {_shown(rate)}, stored {_shown(stored_rate)}")
    return said


def _rate(result: CellResult) -> Estimate:
    return wilson_rate([bool(value) for value in result.column("success")])


def _shown(estimate: Estimate) -> str:
    return f"{estimate.mean:.2f} [{estimate.ci95[0]:.2f}, {estimate.ci95[1]:.2f}]"


def read_cell(file: Path) -> CellResult:
    """Returns the cell in a file.

    Raises:
        DataError: it is damaged, or of a newer format.
    """
    try:
        figures = json.loads(file.read_text(encoding="utf-8"))
        version = int(figures["format"])
        cell = Cell(str(figures["task"]), str(figures["method"]), int(figures["seed"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{file} is no result of a benchmark: {_damage(error)}; remove it to run that cell again"
        raise DataError(said) from error
    if version > FORMAT:
        raise DataError(f"{file} has format {version}, this version reads up to {FORMAT}; upgrade")
    return CellResult(cell, figures)


def differing(what: str, stored: Any, wanted: Any) -> str:
    """Returns in words where settings differ, and nothing of the rest.

    Args:
        what: they are called, before the names of a mapping's entries.
        stored: a mapping, or a list of words.
        wanted: likewise.
    """
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        pairs = {name: (stored.get(name), wanted.get(name)) for name in {**stored, **wanted}}
        return ", ".join(f"{what}.{name}: {a} there, {b} now" for name, (a, b) in pairs.items() if a != b)
    gone, new = ([word for word in a if word not in b] for a, b in ((stored, wanted), (wanted, stored)))
    if not gone and not new:
        gone, new = stored, wanted  # in another order
    return f"{' '.join(gone) or 'nothing'} there, {' '.join(new) or 'nothing'} now"


def _damage(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror})"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    whole = not isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
    return "its values are not those of a cell" if whole else "it is not whole JSON"
