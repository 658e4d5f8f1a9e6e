"""The picture of an augmenter's report: marginals, distances to real rows, dynamics errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.augment.diagnostics import Fidelity
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.training.augmenting.dynamics import DynamicsErrors

# Okabe and Ito (2008): told apart by the colour-blind, too
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_REAL = "#000000"
_SHOWN = 6  # columns whose marginals are drawn: those where the first model is worst
_BINS = 60


@dataclass(frozen=True)
class Judged:
    """One model's samples, measured.

    Args:
        name: of the model.
        table: its samples.
        fidelity: against the real rows.
        dynamics: against the simulator; None where there is none.
    """

    name: str
    table: Transitions
    fidelity: Fidelity
    dynamics: DynamicsErrors | None


def draw_report(judged: Sequence[Judged], real: Transitions, apart: float, floor: float | None, picture: Path) -> None:
    """Draws a PNG.

    Args:
        judged: models; the first one is reported on.
        real: the rows they learned from.
        apart: median distance of a real row to the next.
        floor: median dynamics error of real rows; None where there is no simulator.
        picture: the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 10), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 3)
    like = judged[0].fidelity.ks
    worst = sorted(range(len(real.columns.names)), key=lambda i: like[real.columns.names[i]])[:_SHOWN]
    for each, column in zip(axes[:2].flat, worst, strict=False):
        _marginal(each, judged, real, column)
    _marginals(axes[2, 0], judged)
    _distances(axes[2, 1], judged, apart)
    _dynamics(axes[2, 2], judged, floor)
    temporary = picture.with_suffix(".tmp.png")
    try:
        figure.savefig(temporary, dpi=100)
        temporary.replace(picture)
    finally:
        temporary.unlink(missing_ok=True)


def _marginal(axes: Any, judged: Sequence[Judged], real: Transitions, column: int) -> None:
    values = real.rows[:, column]
    edges = np.histogram_bin_edges(values, _BINS, tuple(np.percentile(values, [0.1, 99.9])))
    if edges[0] == edges[-1] or (real.columns.outcome and column == real.columns.terminal_at):
        edges = np.histogram_bin_edges(values, _BINS)
    axes.hist(values, edges, weights=_shares(values), color=_REAL, alpha=0.25, label="real")
    for each, colour in zip(judged, _COLOURS, strict=False):
        drawn = each.table.rows[:, column]
        axes.hist(drawn, edges, weights=_shares(drawn), histtype="step", color=colour, label=each.name)
    name = real.columns.names[column]
    axes.set_title(f"{name}, KS complement of {judged[0].name} {judged[0].fidelity.ks[name]:.3f}", fontsize=10)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)
    if not axes.get_subplotspec().colspan.start and not axes.get_subplotspec().rowspan.start:
        axes.legend(frameon=False)


def _shares(values: Any) -> Any:
    """Returns each row's share of all: a table of which nothing is in the picture has no density there."""
    return np.full(len(values), 1 / len(values))


def _marginals(axes: Any, judged: Sequence[Judged]) -> None:
    for each, colour in zip(judged, _COLOURS, strict=False):
        axes.plot(np.sort(list(each.fidelity.ks.values())), color=colour, label=each.name)
    axes.set_title("KS complements, sorted", fontsize=10)
    axes.set_xlabel("column")
    axes.grid(alpha=0.3)


def _distances(axes: Any, judged: Sequence[Judged], apart: float) -> None:
    names = [each.name for each in judged]
    axes.bar(names, [each.fidelity.nearest.synthetic for each in judged], color=_COLOURS[: len(names)])
    axes.axhline(apart, color=_REAL, linestyle="--", label="real to real")
    axes.set_title("median distance to the nearest real row (deviations)", fontsize=10)
    axes.legend(frameon=False)


def _dynamics(axes: Any, judged: Sequence[Judged], floor: float | None) -> None:
    shown = [(each, colour) for each, colour in zip(judged, _COLOURS, strict=False) if each.dynamics is not None]
    if not shown:
        axes.text(0.5, 0.5, "dynamics not measured:\nno simulator that can be set", ha="center", va="center")
        axes.set_axis_off()
        return
    for each, colour in shown:
        assert each.dynamics is not None
        errors = np.sort(np.maximum(each.dynamics.rows, 1e-7))
        axes.plot(errors, np.linspace(0, 1, len(errors)), color=colour, label=f"{each.name} {each.dynamics.median:.2g}")
    if floor is not None:
        axes.axvline(max(floor, 1e-7), color=_REAL, linestyle="--", label=f"real rows {floor:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("deviations")
    axes.set_title("share of rows below a dynamics error; medians", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
