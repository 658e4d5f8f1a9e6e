"""Plots of a data set's health: lengths and idle ends, time steps, lags, and what findings point at.

Letters: M episodes, T steps of one, D numbers of a key.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffusion_policy.data.doctor.findings import Finding, Span
from diffusion_policy.data.doctor.lag import SHIFTS, Follows
from diffusion_policy.data.doctor.timing import TimingCheck
from diffusion_policy.data.pictures import recorded_images
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.survey import Survey

# Okabe and Ito (2008): told apart by the colour-blind, too
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_FAULT = "#D55E00"
_LINES = 4  # numbers of a step, or pairs of action and state, that are drawn
_EPISODES = 3  # beside each other, of one finding


def lengths_figure(found: Survey) -> Figure:
    """Draws how long episodes are, and which part of each is idle."""
    figure, axes = _axes(11, 2.6)
    idle = np.array(found.checks.idle.spans or [(0, count) for count in found.lengths])
    edges = np.arange(len(found.lengths) + 1) - 0.5  # an episode is as wide as 1, the first and last one, too
    axes.stairs(found.lengths, edges, fill=True, color="#0072B2", alpha=0.8, linewidth=0, label="moving")
    ends = found.lengths - idle[:, 1]
    if idle[:, 0].any() or ends.any():
        axes.stairs(idle[:, 0], edges, fill=True, color="#E69F00", linewidth=0, label="idle start")
        axes.stairs(found.lengths, edges, baseline=idle[:, 1], fill=True, color=_FAULT, linewidth=0, label="idle end")
        axes.legend(frameon=False, ncols=3)
    axes.set(xlabel="episode", ylabel="steps", xlim=(edges[0], edges[-1]), ylim=(0, None))
    return figure


def timing_figure(timing: TimingCheck) -> Figure:
    """Draws the usual time between two stamps of each episode."""
    figure, axes = _axes(11, 2.2)
    axes.plot(timing.steps, ".", color=_COLOURS[0])
    axes.set(xlabel="episode", ylabel=f"median step of {timing.key}", ylim=(0, None))
    axes.grid(alpha=0.3)
    return figure


def lag_figure(follows: Sequence[Follows]) -> Figure:
    """Draws how well states agree with actions at each shift."""
    figure, axes = _axes(7, 2.8)
    for each, colour in zip(follows[: len(_COLOURS)], _COLOURS, strict=False):
        label = f"{each.state[0]}[{each.state[1]}] after {each.action[0]}[{each.action[1]}]: {each.lag}"
        axes.plot(list(SHIFTS), each.curve, ".-", color=colour, label=label)
        axes.plot(each.lag, each.correlation, "o", color=colour, markersize=8, fillstyle="none")
    axes.set_xticks(SHIFTS[::2])
    axes.set(xlabel="steps that the state is taken later than the action", ylabel="correlation")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def finding_figure(buffer: ReplayBuffer, finding: Finding, found: Survey) -> Figure | None:
    """Draws what a finding points at, in up to three episodes; None where there is nothing to draw.

    Args:
        buffer: the data set.
        finding: about some of its steps or episodes.
        found: all that is known of it.
    """
    key = finding.key or next((key for key, role in found.checks.roles.items() if role == "action"), "")
    role = found.checks.roles.get(key)
    by_episode: dict[int, list[Span]] = {i: [] for i in finding.episodes[:_EPISODES]}
    for span in finding.spans:
        if span.episode in by_episode:
            by_episode[span.episode].append(span)
    if not by_episode:
        return None
    if role == "image" and finding.spans:
        return _frames(buffer, key, finding.spans[0])
    if role in ("action", "state", "time"):
        return _courses(buffer, key, finding.dims or tuple(range(_LINES)), by_episode)
    return None


def _courses(buffer: ReplayBuffer, key: str, dims: Sequence[int], by_episode: dict[int, list[Span]]) -> Figure:
    figure, panels = _panels(len(by_episode), 4.0, 2.2)
    size = max(1, int(np.prod(buffer.shape(key))))
    for axes, (i, spans) in zip(panels, by_episode.items(), strict=True):
        rows = buffer.get_episode(i, [key])[key].reshape(-1, size)
        for d, colour in zip([d for d in dims if d < size][:_LINES], _COLOURS, strict=False):
            axes.plot(rows[:, d], color=colour, linewidth=1, label=f"{key}[{d}]" if size > 1 else key)
        for span in spans:
            axes.axvspan(span.start - 0.5, span.stop - 0.5, color=_FAULT, alpha=0.25, linewidth=0)
        axes.set_title(f"episode {i}", fontsize=10)
        axes.set_xlabel("step")
    panels[0].legend(frameon=False, fontsize="small")
    return figure


def _frames(buffer: ReplayBuffer, key: str, span: Span) -> Figure | None:
    """Draws pictures before, in and after a span."""
    rows = buffer.episode_slice(span.episode)
    if len(buffer.shape(key)) != 3 or 3 not in (buffer.shape(key)[0], buffer.shape(key)[2]):
        return None
    count = rows.stop - rows.start
    steps = sorted({max(0, span.start - 1), span.start, span.stop - 1, min(count - 1, span.stop)})
    figure, panels = _panels(len(steps), 1.8, 2.1)
    for axes, step in zip(panels, steps, strict=True):
        at = rows.start + step
        axes.imshow(next(recorded_images(buffer, key, slice(at, at + 1))))
        axes.set_axis_off()
        axes.set_title(f"step {step}", fontsize=10, color=_FAULT if span.start <= step < span.stop else "black")
    figure.suptitle(f"{key}, episode {span.episode}", fontsize=10)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(max(4.0, width * count), height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])
