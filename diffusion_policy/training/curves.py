"""The course of a run as a picture: loss, error of sampled actions, rollouts; one colour for one meaning."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_policy.training.metrics import read_metrics

_MARKED = 40  # points at most, beyond which markers run into a band


@dataclass(frozen=True)
class _Line:
    """One curve: what is drawn, how it is called, how it looks."""

    kind: str
    name: str
    label: str
    style: dict[str, Any]


# Okabe and Ito (2008): told apart by the colour-blind, too
_TRAINING: dict[str, Any] = {"color": "#0072B2", "marker": "o", "markersize": 3}
_HELD_OUT: dict[str, Any] = {"color": "#D55E00", "marker": "o", "markersize": 3}
_REWARD: dict[str, Any] = {"color": "#009E73", "marker": "o", "markersize": 5, "linewidth": 3.5}
# dashed and hollow: where both are equal, the reward shows through
_SUCCESS: dict[str, Any] = {"color": "#CC79A7", "marker": "s", "markersize": 7, "fillstyle": "none", "linestyle": "--"}

_PANELS = (
    (
        "loss",
        (
            _Line("train", "loss", "training episodes", _TRAINING),
            _Line("validation", "loss", "held-out episodes (EMA)", _HELD_OUT),
        ),
    ),
    (
        "error of sampled actions (RMSE, {unit})",
        (
            _Line("validation", "train_action_rmse", "training episodes (EMA)", _TRAINING),
            _Line("validation", "action_rmse", "held-out episodes (EMA)", _HELD_OUT),
        ),
    ),
    (
        "rollouts (validation seeds)",
        (
            _Line("rollout", "max_reward", "mean max reward", _REWARD),
            _Line("rollout", "success_rate", "success rate", _SUCCESS),
        ),
    ),
)
_AGENT_PANELS = (
    (
        "losses",
        (
            _Line("train", "imitation_loss", "imitation", _TRAINING),
            _Line("train", "critic_loss", "critics", _HELD_OUT),
        ),
    ),
    (
        "values of the data's actions",
        (
            _Line("train", "q", "Q", _TRAINING),
            _Line("train", "q_target", "target of Q", {**_HELD_OUT, "linestyle": "--"}),
            _Line("train", "value", "V", _REWARD),
        ),
    ),
    ("rollouts (validation seeds)", (_Line("rollout", "return", "mean return", _REWARD),)),
)
"""Of an agent: its loss is a sum of several, and its rewards are there to be summed."""


def draw_curves(metrics: Path, picture: Path, unit: str = "") -> None:
    """Draws what a run measured over gradient steps into a PNG; what it did not measure has no panel.

    Args:
        metrics: the run's metrics.jsonl.
        picture: the PNG.
        unit: of the actions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = read_metrics(metrics)
    panels = _AGENT_PANELS if any("critic_loss" in record for record in records) else _PANELS
    shown = [panel for panel in panels if any(_points(records, line)[0] for line in panel[1])] or [panels[0]]
    figure = Figure(figsize=(4.6 * len(shown), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(1, len(shown), sharex=True, squeeze=False)[0], shown, strict=True):
        _draw(axes, records, lines)
        axes.set_title(title.format(unit=unit or "env units"))
    temporary = picture.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110)
    temporary.replace(picture)


def _draw(axes: Any, records: list[dict[str, Any]], lines: tuple[_Line, ...]) -> None:
    from matplotlib.ticker import MaxNLocator

    for line in lines:
        steps, values = _points(records, line)
        if steps:
            style = line.style if len(steps) < _MARKED else {**line.style, "marker": None}
            axes.plot(steps, values, label=line.label, **style)
    positive = all(value > 0 for drawn in axes.lines for value in drawn.get_ydata())  # a log-likelihood need not be
    if lines[0].kind == "train" and "loss" in lines[0].name and axes.lines and positive:
        axes.set_yscale("log")
    if lines[0].name == "max_reward":  # rates end at 1, rewards as a rule
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), max(1.05, axes.get_ylim()[1]))
    axes.set_xlabel("gradient step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))  # there is no step 2.5
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)


def _points(records: list[dict[str, Any]], line: _Line) -> tuple[list[int], list[float]]:
    rows = [r for r in records if r["kind"] == line.kind and r.get(line.name) is not None]
    return [r["grad_step"] for r in rows], [r[line.name] for r in rows]
