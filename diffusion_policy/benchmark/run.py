"""Runs a suite, cell by cell: what is finished stays finished, whatever ends it."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusion_policy.benchmark.cell import Compose, cell_file, cell_settings, check_same, first_policy, run_cell
from diffusion_policy.benchmark.results import read_cell
from diffusion_policy.benchmark.suite import Cell, Suite, Task
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.locks import FolderLock
from diffusion_policy.paths import one_dataset, results_in
from diffusion_policy.rollout.actors import ExpertActor
from diffusion_policy.rollout.collect import collect
from diffusion_policy.rollout.environments import make_env
from diffusion_policy.settings import section

logger = logging.getLogger(__name__)


def run_suite(suite: Suite, out: Path, compose: Compose, only: Sequence[str] = (), plugins: Sequence[str] = ()) -> bool:
    """Runs the cells that are not finished. Returns whether all are now; False after Ctrl-C.

    Args:
        suite: what to run.
        out: folder of the benchmark; one that holds finished cells goes on.
        compose: makes configurations.
        only: names of tasks, methods or cells; others are left out. Empty for all.
        plugins: modules that every process imports first.

    Raises:
        ConfigError: `only` names nothing, a cell cannot be composed, a task has no demonstrations, or a cell stands
            there with other settings.
        EnvironmentIdError: an environment that is to give demonstrations cannot be made.
        StorageError: `out` cannot be written.
        OutputExistsError: another process works there.
        MissingFileError: a cell begins with the policy of another one that is not there.
        DiffusionPolicyError: whatever a cell raises; those before it stay.
    """
    cells = _chosen(suite, only)
    for cell in cells:  # a mistake shall show now, not after hours
        cell_settings(cell, suite, compose)
    named = {task: _named_dataset(suite, task, compose) for task in dict.fromkeys(cell.task for cell in cells)}
    with results_in(out), FolderLock(out, "benchmark"):
        left = [cell for cell in cells if not _finished(cell, suite, out)]
        for cell in left:
            if (before := suite.before(cell)) is not None and before not in left:
                first_policy(out, before, cell)  # likewise
        if len(left) < len(cells):
            logger.info("%d of %d cells are finished already", len(cells) - len(left), len(cells))
        begun = time.monotonic()
        for number, cell in enumerate(left):
            logger.info("cell %d of %d: %s%s", number + 1, len(left), cell.name, _eta(begun, number, len(left)))
            dataset = named[cell.task] or _collected(suite, cell.task, out, compose)
            if not run_cell(cell, suite, out, dataset, compose, plugins):
                return False
    return True


def _chosen(suite: Suite, only: Sequence[str]) -> list[Cell]:
    cells = suite.cells()
    known = {name for cell in cells for name in (cell.task, cell.method, cell.name)}
    if unknown := sorted(set(only) - known):
        raise ConfigError(
            f"only: no task, method or cell is called {', '.join(unknown)}; tasks {', '.join(suite.tasks)}, methods "
            f"{', '.join(suite.methods)}, cells like {cells[0].name}"
        )
    return [cell for cell in cells if not only or {cell.task, cell.method, cell.name} & set(only)]


def _finished(cell: Cell, suite: Suite, out: Path) -> bool:
    """Returns whether a cell stands there, made as is asked for."""
    file = cell_file(out, cell)
    if not file.is_file():
        return False
    figures = read_cell(file).figures
    check_same(suite.words(cell), figures["words"], "words", cell)
    check_same(asdict(suite.judging), figures["judging"], "judging", cell)
    return True


def _eta(begun: float, done: int, total: int) -> str:
    """Returns how long the rest may take, once a cell has shown it."""
    if not done:
        return ""
    minutes = (time.monotonic() - begun) / done * (total - done) / 60
    return f", {minutes:.0f} minutes left if the rest take as long"


def _named_dataset(suite: Suite, task: str, compose: Compose) -> str | None:
    """Returns the demonstrations that the suite or the task itself names; None where the expert gives them.

    Raises:
        ConfigError: there are none, and the environment has no expert.
        EnvironmentIdError: there are none, and the environment cannot be made.
    """
    plan = suite.tasks[task]
    own = compose("train", plan.overrides)["dataset"] if plan.collect is None else None
    if plan.dataset is not None or own is not None:
        return plan.dataset or one_dataset(own)
    env, recorded = _collection(plan, compose)
    made = make_env(str(env["id"]), {**section(env, "kwargs"), **recorded})
    try:
        if getattr(made.unwrapped, "make_expert", None) is None:
            raise ConfigError(
                f"suite.tasks.{task}.dataset: expected a path, got nothing, and {env['id']} has no make_expert(seed) "
                f"to collect from; give it there, or as dataset: in the task's file"
            )
    finally:
        made.close()
    return None


def _collected(suite: Suite, task: str, out: Path, compose: Compose) -> str:
    """Returns the path of the demonstrations that the environment's expert gives."""
    plan = suite.tasks[task]
    path = out / "data" / f"{task}.zarr"
    _check_collected(path, plan.episodes, begun=any((out / "runs").glob(f"{task}-*")))
    env, recorded = _collection(plan, compose)
    collect(
        str(env["id"]),
        ExpertActor(),
        episodes=plan.episodes,
        seed=plan.collect_seed,
        out=path,
        env_kwargs={**section(env, "kwargs"), **recorded},
        resume=path.exists(),
    )
    return str(path)


def _check_collected(path: Path, wanted: int, *, begun: bool) -> None:
    """Raises ConfigError where trainings have seen another number of demonstrations than is asked for now."""
    if not path.exists():
        return
    with ReplayBuffer.open(path) as buffer:
        there = buffer.num_episodes
    if there > wanted or (begun and there != wanted):
        raise ConfigError(f"{path} has {there} episodes, but now collect={wanted} is asked for; take another out=")


def _collection(plan: Task, compose: Compose) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the environment of a task, and the arguments of it that only recording needs."""
    task = [word for word in plan.overrides if word.startswith("task=")]
    settings = compose("collect", task)
    return section(settings, "env"), section(settings, "collect")
