"""What a benchmark compares: a suite of tasks, methods and training seeds, and how each cell is judged."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from diffusion_policy.benchmark.measures import MEASURES, MeasureName
from diffusion_policy.errors import ConfigError
from diffusion_policy.settings import build, section

REPORT_SEED = 100_000
"""Of the first reported episode; nothing is tuned or chosen on it or later ones."""
VALIDATION_SEED = 50_000
"""Of the first episode on which checkpoints are chosen."""


@dataclass(frozen=True)
class Task:
    """A task of a suite.

    Args:
        overrides: settings of dp-train that choose it, e.g. ("task=detour",).
        dataset: path or package:// of its demonstrations.
        collect: how many episodes the environment's expert gives where `dataset` is None; None for the data set that
            the task itself names, or else 200 episodes of the expert.
        collect_seed: of the first of them.
    """

    overrides: tuple[str, ...]
    dataset: str | None = None
    collect: int | None = None
    collect_seed: int = 0

    def __post_init__(self) -> None:
        if self.episodes < 1 or not 0 <= self.collect_seed < VALIDATION_SEED:
            raise ConfigError(
                f"expected collect >= 1 and collect_seed in [0, {VALIDATION_SEED}), but got {self.collect} and "
                f"{self.collect_seed}"
            )

    @property
    def episodes(self) -> int:
        """How many the expert gives, if it is asked."""
        return 200 if self.collect is None else self.collect


@dataclass(frozen=True)
class Judging:
    """How a trained policy is judged.

    Args:
        episodes: of the evaluation, from seed 100000 on.
        num_envs: environments side by side.
        batch_size: rows of every policy call.
        protocols: which checkpoints: "last", and "best" by reward on seeds from 50000 on; never by reported ones.
        validations: how often a run is judged on those seeds, evenly over its length; for "best" only.
        validation_episodes: of each of these.
        latency_calls: predictions of one row that are timed after the evaluation.
    """

    episodes: int = 100
    num_envs: int = 32
    batch_size: int = 32
    protocols: tuple[str, ...] = ("last",)
    validations: int = 5
    validation_episodes: int = 32
    latency_calls: int = 50

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.protocols) - {"last", "best"}):
            raise ConfigError(f"judging.protocols: expected last or best, but got {', '.join(unknown)}")
        if "last" not in self.protocols:
            raise ConfigError("judging.protocols must hold last: what training ends with is always told")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "protocols" and value < 1:
                raise ConfigError(f"judging.{each.name} must be at least 1, but got {value}")
        if self.validation_episodes > REPORT_SEED - VALIDATION_SEED:
            raise ConfigError(f"judging.validation_episodes {self.validation_episodes} would reach the reported seeds")


@dataclass(frozen=True)
class Cell:
    """One training run of a benchmark.

    Args:
        task: its name in the suite.
        method: likewise.
        seed: of the training.
    """

    task: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.task}-{self.method}-s{self.seed}"


@dataclass(frozen=True)
class Suite:
    """Tasks x methods x training seeds.

    Args:
        tasks: by name.
        methods: name -> settings of dp-train.
        seeds: of the trainings.
        overrides: settings of dp-train for all cells, before those of the method.
        begins: method -> the method, named before it, of whose trained policy it begins (dp-train's init).
        special: "task/method", "task/*" or "*/method" -> settings for these cells, the last ones to hold.
        judging: see there.
        reference: the method with which the others are compared; None for diffusion, or else the first.
        axis: what the methods are values of, if they are numbers, e.g. "demonstrations": pictures then show curves.
        measures: what is told of the episodes; pictures show the first.
    """

    tasks: Mapping[str, Task]
    methods: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    begins: Mapping[str, str] = field(default_factory=dict)
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judging: Judging = field(default_factory=Judging)
    reference: str | None = None
    axis: str | None = None
    measures: tuple[MeasureName, ...] = ("success", "max_reward")

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the suite that a file of conf/suite describes.

        Raises:
            ConfigError: a setting is unknown, missing, or names no task or method.
        """
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise ConfigError(f"suite: unknown setting {', '.join(unknown)}, known: {', '.join(known)}")
        tasks = {name: build(Task, each, f"suite.tasks.{name}") for name, each in section(settings, "tasks").items()}
        methods = {str(name): _words(each, f"methods.{name}") for name, each in section(settings, "methods").items()}
        seeds = settings.get("seeds") or ()
        if not isinstance(seeds, list | tuple) or len(set(seeds)) != len(seeds):
            raise ConfigError(f"suite.seeds must be a list of different numbers, but got {seeds!r}")
        seeds = tuple(seeds)
        if not (tasks and methods and seeds):
            raise ConfigError("suite: expected at least one task, one method and one seed")
        if any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in seeds):
            raise ConfigError(f"suite.seeds must be whole numbers, 0 or more, but got {list(seeds)}")
        if settings.get("axis") and not all(str(name).isdigit() for name in methods):
            raise ConfigError(f"suite.axis: expected methods named by numbers, but got {', '.join(map(str, methods))}")
        special = {name: _words(each, f"special.{name}") for name, each in section(settings, "special").items()}
        for name in special:
            task, _, method = name.partition("/")
            if task not in ("*", *tasks) or method not in ("*", *methods):
                raise ConfigError(
                    f"suite.special: '{name}' names no cells; tasks {list(tasks)}, methods {list(methods)}"
                )
        return cls(
            tasks=tasks,
            methods=methods,
            seeds=seeds,
            overrides=_words(settings.get("overrides"), "overrides"),
            begins=_begins(section(settings, "begins"), list(methods)),
            special=special,
            judging=build(Judging, section(settings, "judging"), "suite.judging"),
            reference=_reference(settings.get("reference"), methods),
            axis=settings.get("axis"),
            measures=_measures(settings.get("measures")),
        )

    @property
    def compared_with(self) -> str:
        """The method with which the others are compared."""
        return self.reference or ("diffusion" if "diffusion" in self.methods else next(iter(self.methods)))

    def cells(self) -> list[Cell]:
        """Returns all cells: first every task and method with the first seed, so that a part is worth reading."""
        return [Cell(task, method, seed) for seed in self.seeds for task in self.tasks for method in self.methods]

    def before(self, cell: Cell) -> Cell | None:
        """Returns the cell of whose policy a cell begins; None for most."""
        method = self.begins.get(cell.method)
        return None if method is None else replace(cell, method=method)

    def words(self, cell: Cell) -> list[str]:
        """Returns the settings of dp-train that a cell has, in the order in which they hold."""
        task, method = cell.task, cell.method
        chosen = [self.special.get(name, ()) for name in (f"{task}/*", f"*/{method}", f"{task}/{method}")]
        words = [*self.tasks[task].overrides, *self.overrides, *self.methods[method]]
        before = self.before(cell)
        initial = [] if before is None else [f"init={before.name}"]  # its policy.pt, wherever the benchmark lies
        return [*words, *(word for each in chosen for word in each), *initial, f"seed={cell.seed}"]


def _words(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | None) or any(not isinstance(word, str) for word in value or ()):
        example = shlex.quote(f'suite.{name}=["{value if isinstance(value, str) else "optim.lr=1e-3"}"]')
        raise ConfigError(
            f"suite.{name}: expected a list of settings, but got {value!r}; in a file [policy=mlp, optim.lr=1e-3], "
            f"on the command line {example}"
        )
    return tuple(value or ())


def _begins(value: Mapping[str, Any], methods: list[str]) -> dict[str, str]:
    for method, before in value.items():
        known = methods[: methods.index(method)] if method in methods else []
        if before not in known:
            raise ConfigError(
                f"suite.begins.{method}: expected a method with another one named before it, of which it begins "
                f"({', '.join(known) or 'none'}), but got {before}; methods: {', '.join(methods)}"
            )
    return dict(value)


def _measures(value: Any) -> tuple[MeasureName, ...]:
    chosen = value if value is not None else ["success", "max_reward"]
    if not isinstance(chosen, list | tuple) or not chosen or any(each not in MEASURES for each in chosen):
        raise ConfigError(f"suite.measures: expected some of {', '.join(MEASURES)}, but got {value!r}")
    return tuple(chosen)


def _reference(value: Any, methods: Mapping[str, Any]) -> str | None:
    if value is not None and str(value) not in methods:
        raise ConfigError(f"suite.reference: expected one of the methods {', '.join(methods)}, but got {value}")
    return None if value is None else str(value)
