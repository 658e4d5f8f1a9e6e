"""The tables of a benchmark's report: intervals, training seeds one by one, "not run" where nothing is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.benchmark.measures import MEASURES, Measure, MeasureName
from diffusion_policy.benchmark.results import CellResult, Results
from diffusion_policy.rollout.statistics import Estimate

NOT_RUN = "not run"
_WORDS = {"last": "last checkpoint", "best": "best checkpoint by validation seeds"}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        title: what it shows.
        head: of its columns.
        rows: each as long as the head.
        note: how to read it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(
    results: Results,
    tasks: Sequence[str],
    methods: Sequence[str],
    reference: str,
    measures: Sequence[MeasureName] = ("success", "max_reward"),
) -> list[Table]:
    """Returns all tables of a report.

    Args:
        results: the finished cells.
        tasks: rows, also those of which no cell is finished.
        methods: columns, likewise.
        reference: the method with which the others are compared.
        measures: of episodes.
    """
    judged = {protocol for each in results.cells for protocol in each.figures["evaluations"]}
    protocols = [protocol for protocol in _WORDS if protocol in judged] or ["last"]
    made = []
    for protocol in protocols:
        made += [_outcomes(results, tasks, methods, MEASURES[name], protocol) for name in measures]
    if reference in methods and len(methods) > 1:
        made += [_leads(results, tasks, methods, reference, MEASURES[name]) for name in measures]
    if any(_behavior(each) for each in results.cells):
        made.append(_behaviors(results, tasks, methods))
    return [*made, _costs(results, tasks, methods)]


def shown(estimate: Estimate | None, sign: bool = False, digits: int = 3) -> str:
    """Returns an estimate with its interval; "not run" for None."""
    if estimate is None:
        return NOT_RUN
    form = f"{'+' if sign else ''}.{digits}f"
    low, high = estimate.ci95
    return f"{estimate.mean:{form}} [{low:{form}}, {high:{form}}]"


def _outcomes(results: Results, tasks: Sequence[str], methods: Sequence[str], measure: Measure, protocol: str) -> Table:
    digits = 2 if measure.unit else 0

    def cell(task: str, method: str) -> str:
        seeds = results.by_seed(task, method, measure.name, protocol).values()
        listed = f" ({', '.join(f'{each:.{digits}f}' for each in seeds)})" if seeds else ""
        return shown(results.estimate(task, method, measure.name, protocol), digits=measure.digits) + listed

    head = ["task", *methods]
    return Table(f"{measure.title}, {_WORDS[protocol]}", head, _grid(tasks, methods, cell), measure.note)


def _leads(results: Results, tasks: Sequence[str], methods: Sequence[str], reference: str, measure: Measure) -> Table:
    others = [method for method in methods if method != reference]

    def cell(task: str, method: str) -> str:
        return shown(results.lead(task, reference, method, measure.name), sign=True, digits=measure.digits)

    note = (
        "Paired over the same evaluation seeds, training seeds averaged; an interval above zero is a lead of these "
        "networks that other episodes would confirm; it does not know other training seeds."
    )
    title = f"Lead of {reference}: {measure.title[0].lower()}{measure.title[1:]}"
    return Table(title, ["task", *others], _grid(tasks, others, cell), note)


def _behaviors(results: Results, tasks: Sequence[str], methods: Sequence[str]) -> Table:
    known = [task for task in tasks if any(_behavior(each) for each in results.cells if each.cell.task == task)]

    def cell(task: str, method: str) -> str:
        found = [_behavior(each) for each in results.of(task, method)]
        told = [each for each in found if each]
        if not told:
            return NOT_RUN
        used = np.mean([sum(count > 0 for count in each["counts"].values()) for each in told])
        entropy, even = (np.mean([each[name] for each in told]) for name in ("entropy", "entropy_if_uniform"))
        if not used:
            return "no success"
        return f"{entropy:.2f} of {even:.2f} ({used:.0f} of {len(told[0]['counts'])} ways)"

    note = (
        "Entropy of the ways that successful episodes went, 1 being evenly all; after `of` what so many episodes of a "
        "perfectly even policy have. Mean over training seeds."
    )
    return Table("Behaviour entropy, last checkpoint", ["task", *methods], _grid(known, methods, cell), note)


def _costs(results: Results, tasks: Sequence[str], methods: Sequence[str]) -> Table:
    def cell(task: str, method: str) -> str:
        found = results.of(task, method)
        if not found:
            return NOT_RUN
        training = [each.figures["training"] for each in found]
        wall, cpu = (_duration(float(np.mean([each[name] for each in training]))) for name in ("wall_s", "cpu_s"))
        whole = "" if all(each["complete"] for each in training) else " at least"
        latency = np.mean([each.figures["latency_ms"]["p50"] for each in found])
        steps, size = training[0]["grad_steps"], training[0]["parameters"] / 1e6
        return f"{wall}{whole} ({cpu} CPU), {steps} steps, {size:.1f} M, {latency:.1f} ms"

    note = (
        "Time of training, rollouts that choose checkpoints included, mean over training seeds; gradient steps; "
        "parameters; median time of one prediction at batch 1."
    )
    return Table("Cost", ["task", *methods], _grid(tasks, methods, cell), note)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _grid(tasks: Sequence[str], methods: Sequence[str], cell: Callable[[str, str], str]) -> list[list[str]]:
    return [[task, *(cell(task, method) for method in methods)] for task in tasks]


def _behavior(result: CellResult) -> dict[str, Any]:
    return dict(result.figures["evaluations"]["last"].get("behavior") or {})
