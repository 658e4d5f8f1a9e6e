"""The course of an online run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito (2008): told apart by the colour-blind, too
_EVALUATED, _EPISODES, _REFRESH = "#0072B2", "#999999", "#D55E00"


def draw_online(
    evaluations: Sequence[Mapping[str, Any]],
    episodes: Sequence[Mapping[str, Any]],
    refreshes: Sequence[Mapping[str, Any]],
    picture: Path,
) -> None:
    """Draws returns over environment steps, and how like the real transitions each synthetic set was, into a PNG.

    Args:
        evaluations: with `env_step` and `return`.
        episodes: those that the agent learned from, with `env_step` and `return`.
        refreshes: with `env_step`, `ks_mean` and `correlation_mean`; without any there is no panel for them.
        picture: the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6 if refreshes else 5.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes, *others = figure.subplots(1, 2 if refreshes else 1, squeeze=False)[0]
    for number, each in enumerate(refreshes):
        label = "refresh" if number == 0 else None
        axes.axvline(each["env_step"], color=_REFRESH, linewidth=0.8, linestyle=":", label=label)
    axes.plot(
        [each["env_step"] for each in episodes],
        [each["return"] for each in episodes],
        color=_EPISODES,
        linewidth=0.8,
        label="training episodes",
    )
    steps = [each["env_step"] for each in evaluations]
    low, high = ([each["return"]["ci95"][side] for each in evaluations] for side in (0, 1))
    axes.fill_between(steps, low, high, color=_EVALUATED, alpha=0.2, linewidth=0)
    mean = [each["return"]["mean"] for each in evaluations]
    axes.plot(steps, mean, color=_EVALUATED, marker="o", markersize=3, label="evaluation, 95 % over episodes")
    axes.set_title("return")
    for other in others:
        at = [each["env_step"] for each in refreshes]
        for name, colour in (("ks_mean", _EVALUATED), ("correlation_mean", "#009E73")):
            label = {"ks_mean": "KS complement", "correlation_mean": "correlation similarity"}[name]
            other.plot(at, [each[name] for each in refreshes], color=colour, marker="o", markersize=3, label=label)
        other.set_title("synthetic against real transitions")
    for each in (axes, *others):
        each.set_xlabel("environment step")
        each.grid(alpha=0.3)
        each.legend(frameon=False, fontsize=8)
    temporary = picture.with_suffix(".tmp.png")
    try:
        figure.savefig(temporary, dpi=110)
        temporary.replace(picture)
    finally:
        temporary.unlink(missing_ok=True)
