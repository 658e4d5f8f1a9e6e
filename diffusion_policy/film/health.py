"""The health of a data set as one page: findings, plots, thumbnails; and the same as JSON beside it."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusion_policy.data.doctor.findings import Finding
from diffusion_policy.data.pictures import action_figure
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.store import storage_errors
from diffusion_policy.data.survey import Survey
from diffusion_policy.film.health_plots import finding_figure, lag_figure, lengths_figure, timing_figure
from diffusion_policy.film.picture import Frame
from diffusion_policy.pages import figure_png, inline_png, rendered
from diffusion_policy.versions import installed_versions

PICTURED = 6
"""Episodes of which thumbnails are shown."""
_NOTES = 12  # findings that have a plot of their own, the worst first


def write_report(
    buffer: ReplayBuffer, found: Survey, page: Path, *, data: str, origin: str = "", drawn: Frame | None = None
) -> None:
    """Writes the page, and a .json beside it.

    Args:
        buffer: the data set.
        found: by a survey that kept thumbnails.
        page: a .html.
        data: the data set, as commands name it.
        origin: where it comes from, lines of text.
        drawn: moments of episodes, where the data set has no pictures and an environment drew them.

    Raises:
        StorageError: they cannot be written.
    """
    told = _told(buffer, found, data)
    context = {
        **told,
        "origin": origin,
        "tables": [
            {"key": key, "each": each, "role": found.checks.roles[key], "shape": "x".join(map(str, each.shape)) or "1"}
            for key, each in found.keys.items()
        ],
        "found": [{**each.plain(data), "title": each.kind.title} for each in found.findings],
        "plots": [{"title": title, "png": inline_png(figure_png(figure))} for title, figure in _plots(buffer, found)],
        "pictures": list(_pictures(found)),
        "drawn": None if drawn is None else inline_png(_png(drawn)),
    }
    with storage_errors(str(page), anew=True):
        page.parent.mkdir(parents=True, exist_ok=True)
        template = Path(__file__).with_name("health.html.j2")
        page.write_text(rendered(template, context), encoding="utf-8")
        text = json.dumps(told, indent=1, allow_nan=False)
        page.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def _told(buffer: ReplayBuffer, found: Survey, data: str) -> dict[str, Any]:
    return {
        "data": data,
        "digest": found.digest,
        "episodes": buffer.num_episodes,
        "steps": buffer.num_steps,
        "lengths": {"min": int(found.lengths.min()), "median": float(np.median(found.lengths)),
                    "max": int(found.lengths.max())},
        "counts": {"problem": len(found.problems), "warning": len(found.warnings), "note": len(found.notes)},
        "keys": {
            key: {"dtype": str(each.dtype), "shape": list(each.shape), "role": found.checks.roles[key],
                  "min": _or_none(each.low.min()), "mean": _or_none(each.mean), "max": _or_none(each.high.max())}
            for key, each in found.keys.items()
        },
        "findings": [each.plain(data) for each in found.findings],
        "versions": installed_versions(),
    }  # fmt: skip


def _or_none(value: Any) -> float | None:
    """Returns a number, None where there is none: JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None


def _plots(buffer: ReplayBuffer, found: Survey) -> Iterator[tuple[str, Any]]:
    yield "Lengths of the episodes", lengths_figure(found)
    if found.checks.timing is not None:
        yield "Time steps", timing_figure(found.checks.timing)
    shown: list[Finding] = [each for each in found.findings if each.name not in ("lag", "constant", "duplicated")]
    for each in shown[:_NOTES]:
        figure = finding_figure(buffer, each, found)
        if figure is not None:
            yield f"{each.severity.capitalize()}: {each.what}", figure
    follows = found.checks.lag.follows()
    if follows:
        yield "Lag of the state behind the action", lag_figure(follows)
    for key, role in found.checks.roles.items():
        if role == "action":
            yield f"{key}: distributions and courses", action_figure(buffer, key)


def _pictures(found: Survey) -> Iterator[dict[str, Any]]:
    for key, episodes in found.checks.thumbnails.pictures.items():
        for i, frames in episodes.items():
            yield {"key": key, "episode": i, "pngs": [inline_png(_png(frame)) for frame in frames]}


def _png(frame: Frame) -> bytes:
    out = BytesIO()
    Image.fromarray(frame if frame.shape[2] in (3, 4) else frame[:, :, 0]).save(out, format="PNG")
    return out.getvalue()
