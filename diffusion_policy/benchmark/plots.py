"""Pictures of a benchmark: what each method reaches on each task, and what it costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.benchmark.measures import MEASURES, MeasureName
from diffusion_policy.benchmark.results import Results
from diffusion_policy.benchmark.tables import NOT_RUN

# Okabe and Ito (2008): told apart by the colour-blind, too
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


def draw_results(
    results: Results, tasks: Sequence[str], methods: Sequence[str], picture: Path, *, measure: MeasureName = "success"
) -> None:
    """Draws a measure by task and method: bars with intervals, a dot for each training seed.

    Args:
        results: the finished cells.
        tasks: panels.
        methods: bars.
        picture: the PNG.
        measure: what of the episodes.
    """
    figure, panels = _figure(len(tasks), width=1.2 + 0.62 * len(methods))
    for axes, task in zip(panels, tasks, strict=True):
        for place, method in enumerate(methods):
            rate = results.estimate(task, method, measure)
            if rate is None:
                axes.text(
                    place,
                    0.02,
                    NOT_RUN,
                    transform=axes.get_xaxis_transform(),
                    rotation=90,
                    ha="center",
                    va="bottom",
                    color="grey",
                )
                continue
            error = np.array([[rate.mean - rate.ci95[0]], [rate.ci95[1] - rate.mean]]).clip(0)
            color = _COLORS[place % len(_COLORS)]
            axes.bar(place, rate.mean, color=color, alpha=0.75, yerr=error, capsize=4, error_kw={"linewidth": 1.2})
            axes.hlines(rate.mean, place - 0.4, place + 0.4, color=color, linewidth=2, clip_on=False)  # a bar of 0, too
            seeds = list(results.by_seed(task, method, measure).values())
            axes.plot(
                _beside(place, len(seeds)),
                seeds,
                "o",
                color="white",
                markeredgecolor="black",
                markersize=4,
                clip_on=False,
            )
        axes.set_xticks(range(len(methods)), methods, rotation=30, ha="right")
        if MEASURES[measure].unit:
            axes.set_ylim(0, 1.05)
        axes.set_title(task)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel(f"{MEASURES[measure].axis}, last checkpoint")
    figure.supxlabel("bars: mean with 95 % interval; dots: training seeds", fontsize="small", color="dimgrey")
    _save(figure, picture)


def draw_curves(
    results: Results,
    tasks: Sequence[str],
    methods: Sequence[str],
    picture: Path,
    *,
    axis: str,
    measures: Sequence[MeasureName] = ("success", "max_reward"),
) -> None:
    """Draws measures within 0 and 1 against a number, with intervals; a dot for each training seed.

    Args:
        results: the finished cells.
        tasks: panels.
        methods: named by the numbers.
        picture: the PNG.
        axis: what the numbers count.
        measures: what of the episodes.
    """
    figure, panels = _figure(len(tasks), width=3.6)
    for axes, task in zip(panels, tasks, strict=True):
        for color, name in zip(_COLORS, measures, strict=False):
            label = MEASURES[name].axis
            found = {int(method): results.estimate(task, method, name) for method in methods}
            known = {number: each for number, each in found.items() if each is not None}
            means = [each.mean for each in known.values()]
            ends = np.array([each.ci95 for each in known.values()]).reshape(-1, 2).T  # (2, points)
            axes.errorbar(
                list(known), means, yerr=np.abs(ends - means), color=color, marker="o", capsize=3, label=label
            )
            for number in known:
                seeds = list(results.by_seed(task, str(number), name).values())
                axes.plot([number] * len(seeds), seeds, ".", color=color, alpha=0.5)
        axes.set_xscale("log")
        axes.set_xticks(sorted(map(int, methods)), sorted(map(int, methods)))
        axes.minorticks_off()
        axes.set_ylim(-0.03, 1.05)
        axes.set_xlabel(axis)
        axes.set_title(task)
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    panels[0].set_ylabel("last checkpoint")
    _save(figure, picture)


def draw_costs(
    results: Results, tasks: Sequence[str], methods: Sequence[str], picture: Path, *, measure: MeasureName = "success"
) -> None:
    """Draws a measure against minutes of training, a point for each training seed.

    Args:
        results: the finished cells.
        tasks: panels.
        methods: colours.
        picture: the PNG.
        measure: what of the episodes.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, panels = _figure(len(tasks), width=3.2)
    for axes, task in zip(panels, tasks, strict=True):
        for place, method in enumerate(methods):
            found = [each for each in results.of(task, method) if each.column(measure)]
            if not found:
                continue
            training = [each.figures["training"] for each in found]
            minutes = [(each["wall_s"] - each["rollout_s"]) / 60 for each in training]
            rates = [float(np.mean(each.column(measure))) for each in found]
            axes.plot(minutes, rates, "o", color=_COLORS[place % len(_COLORS)], label=method, markersize=6)
        if MEASURES[measure].unit:
            axes.set_ylim(-0.03, 1.05)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda minutes, _: f"{minutes:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(task)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"{MEASURES[measure].axis}, last checkpoint")
    figure.supxlabel("minutes of training, without rollouts (logarithmic)", fontsize="medium")
    handles = {line.get_label(): line for axes in panels for line in axes.lines}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    _save(figure, picture)


def _beside(place: int, seeds: int) -> list[float]:
    """Returns where dots stand: left and right of a bar's whisker, a single one on it."""
    return [place + 0.3 * ((each + 0.5) / seeds - 0.5) * 2 for each in range(seeds)]


def _figure(panels: int, width: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, width * panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def _save(figure: Any, picture: Path) -> None:
    temporary = picture.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    temporary.replace(picture)
