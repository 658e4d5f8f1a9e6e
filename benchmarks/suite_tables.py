"""Tables of the suites of dp-benchmark whose cells are stored."""

from typing import Any

from figures import RESULTS, ROOT, machine, stored, table


def finished(name: str) -> tuple[Any, Any]:
    """Returns a suite, and its finished cells in benchmarks/results/NAME."""
    import yaml

    from diffusion_policy.benchmark.results import Results
    from diffusion_policy.benchmark.suite import Suite

    plan = Suite.from_plain(yaml.safe_load((ROOT / "conf" / "suite" / f"{name}.yaml").read_text(encoding="utf-8")))
    folder = RESULTS / name
    return plan, Results.read(folder) if any((folder / "cells").glob("*.json")) else Results([])


_HIDDEN = {
    "offline": ("Lead of diffusion_ql: mean return",),
    "mixed_pusht": ("eturn", "best checkpoint"),
    "augmented": ("eturn", "best checkpoint"),  # rewards tell methods apart where all fail
}
"""What the tables of a suite leave out beside the others: words of their titles."""


def suite(name: str, *, short: bool = False) -> str:
    """Returns the tables of the finished cells in benchmarks/results/NAME, "not run" where there is none.

    Args:
        name: of the suite; methods without any finished cell are left out.
        short: the first measure only, and the leads in it.
    """
    from diffusion_policy.benchmark.measures import MEASURES
    from diffusion_policy.benchmark.tables import tables

    plan, results = finished(name)
    if not results.cells:
        return f"Not run yet: none of {len(plan.cells())} cells is finished."
    begun = {str(each.figures["method"]) for each in results.cells}
    methods = [each for each in plan.methods if plan.axis or each in begun]
    made = tables(results, list(plan.tasks), methods, plan.compared_with, plan.measures)
    hidden = ("best checkpoint", "Cost", "Lead") if plan.axis else _HIDDEN.get(name, ("max reward", "best checkpoint"))
    shown = [each for each in made if not any(word in each.title for word in hidden)]
    if short:
        first = MEASURES[plan.measures[0]].title.lower()
        shown = [each for each in shown if first in each.title.lower()]
    parts = [f"{each.title}:\n\n{table(list(each.head), [list(row) for row in each.rows])}" for each in shown]
    commits = ", ".join(dict.fromkeys(str(each.figures["commit"])[:7] for each in results.cells)) or "none"
    done = f"{len(results.cells)} of {len(plan.cells())} cells are finished; commits {commits}."
    return "\n\n".join(parts if short else [*parts, done])


def edp() -> str:
    """Returns what EDP's one-step estimate saves, and what it costs: training seeds of both, of the same tasks."""
    from diffusion_policy.benchmark.results import Results
    from diffusion_policy.benchmark.tables import NOT_RUN, shown

    plan, results = finished("offline")
    tasks = list(plan.tasks)
    seeds = {each.cell.seed for each in results.cells if each.cell.method == "edp"} or {0}
    same = Results([each for each in results.cells if each.cell.seed in seeds])
    step = stored("ql_step")
    rows = []
    for method, timed in (("diffusion_ql", "ours"), ("edp", "ours, one_step")):
        scores = [shown(same.estimate(task, method, "normalized_return"), digits=1) for task in tasks]
        rows.append([f"`agent={method}`", f"{step[timed]['cpu_ms']:.1f}", *scores])
    lead = [same.lead(task, "edp", "diffusion_ql", "normalized_return") for task in tasks]
    if any(lead):
        rows.append(
            ["difference", "", *(NOT_RUN if each is None else shown(each, sign=True, digits=1) for each in lead)]
        )
    which = f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    return f"{table(['', 'ms of CPU a step', *tasks], rows)}\n\n({machine(step)}; normalised returns of {which}.)"
