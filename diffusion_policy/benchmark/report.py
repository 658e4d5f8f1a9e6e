"""A benchmark's report: Markdown and HTML from one set of tables, with pictures beside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diffusion_policy.benchmark.plots import draw_costs, draw_curves, draw_results
from diffusion_policy.benchmark.results import Results
from diffusion_policy.benchmark.suite import REPORT_SEED, VALIDATION_SEED, Suite
from diffusion_policy.benchmark.tables import tables
from diffusion_policy.pages import rendered


def write_report(suite: Suite, name: str, out: Path) -> Path:
    """Writes report.md, report.html and their pictures into the folder of a benchmark; returns report.html.

    Args:
        suite: what was to be run; cells that are not finished are shown as "not run".
        name: of the suite.
        out: the folder, with at least one finished cell.
    """
    results = Results.read(out).within(suite.cells())
    tasks, methods = list(suite.tasks), list(suite.methods)
    first = suite.measures[0]
    pictures = {"results.png": partial(draw_results, measure=first), "costs.png": partial(draw_costs, measure=first)}
    if suite.axis:
        pictures = {"results.png": partial(draw_curves, axis=suite.axis, measures=suite.measures)}
    for file, draw in pictures.items():
        draw(results, tasks, methods, out / file)
    context = {
        "name": name,
        "tables": tables(results, tasks, methods, suite.compared_with, suite.measures),
        "pictures": list(pictures),
        "protocol": _protocol(suite, results),
    }
    for kind in ("md", "html"):
        template = Path(__file__).with_name(f"report.{kind}.j2")
        (out / f"report.{kind}").write_text(rendered(template, context), encoding="utf-8")
    return out / "report.html"


def _protocol(suite: Suite, results: Results) -> list[str]:
    """Returns how the numbers were made, a sentence each."""
    figures = [each.figures for each in results.cells]
    judging = suite.judging
    last = REPORT_SEED + judging.episodes - 1
    said = [
        f"{len(results.cells)} of {_counted(len(suite.cells()), 'cell')} are finished: "
        f"{_counted(len(suite.tasks), 'task')}, {_counted(len(suite.methods), 'method')}, "
        f"{'training seeds' if len(suite.seeds) > 1 else 'training seed'} {', '.join(map(str, suite.seeds))}.",
        f"Evaluated on {_counted(judging.episodes, 'episode')}, seeds {REPORT_SEED} to {last}, the same for all.",
        "Reported is the last checkpoint of each training.",
        _comparison(suite),
        f"Commit {_all(figures, 'commit')}.",
        f"Hardware: {_all([each['hardware'] for each in figures], 'cpu')}, "
        f"{_threads(figures)}, "
        f"GPU {_all([each['hardware'] for each in figures], 'gpu')}.",
        f"torch {_all([each['versions'] for each in figures], 'torch')}, "
        f"mujoco {_all([each['versions'] for each in figures], 'mujoco')}.",
    ]
    if "best" in judging.protocols:
        said[2] = (
            f"Reported are the last checkpoint and the best of {judging.validations} by {judging.validation_episodes} "
            f"episodes from seed {VALIDATION_SEED} on; never the best on reported seeds."
        )
    data = sorted({(each["task"], each["dataset"].get("digest", "")[:12]) for each in figures})
    return [*said, "Demonstrations: " + ", ".join(f"{task} {digest}" for task, digest in data) + "."]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _threads(figures: Sequence[Mapping[str, Any]]) -> str:
    known = _all([each["hardware"] for each in figures], "torch_threads")
    return f"{known} thread" if known == "1" else f"{known} threads"


def _comparison(suite: Suite) -> str:
    """Returns what the others are compared with, and who was tuned: presets are made for diffusion."""
    method = suite.compared_with
    if suite.reference is None and method != "diffusion":
        return f"Compared with {method}, the first method: the suite names no reference."
    return (
        f"Lengths and learning rates are those of {method} unless the settings of a cell say otherwise: the other "
        "methods were not tuned."
    )


def _all(figures: Sequence[Mapping[str, Any]], name: str) -> str:
    """Returns the values of a figure over all cells, each once."""
    return ", ".join(dict.fromkeys(str(each.get(name) or "none") for each in figures))
