"""What delay does to a policy, strategy by strategy: evaluations in a row, as rows of a table, JSON and a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy.config import Horizons
from diffusion_policy.control.plan import warm_up_guidance
from diffusion_policy.control.strategies import RealTimeChunking, make_strategy
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import ChunkPolicy
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.evaluate import evaluate
from diffusion_policy.rollout.result import EvalResult
from diffusion_policy.rollout.timing import Timing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = ("strategy", "delay", "max reward", "success", "jerk", "jump", "elsewhere", "starved", "ms")

_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito (2008)
_FIGURES = (
    ("max_reward", "mean max reward", "reward"),
    ("success", "success rate", "share of episodes"),
    ("jerk", "jerk", "{unit} / env step³"),
    ("jump", "jump at joints", "{unit} / env step²"),
)
"""What is drawn: its name, a title, and its unit, where {unit} is an action's."""


Content = Mapping[str, Any]
"""Of an eval.json: see `EvalResult.to_dict`."""


@dataclass(frozen=True)
class Case:
    """One strategy under one delay.

    Args:
        strategy: its name.
        timing: the delay, and the strategy as it is run.
    """

    strategy: str
    timing: Timing

    @property
    def name(self) -> str:
        """For folders and reports: strategy-delay."""
        return f"{self.strategy}-{self.timing.latency_steps}"


def cases(
    horizons: Horizons,
    strategies: Sequence[str],
    delays: Sequence[int],
    *,
    jitter_steps: int = 0,
    every: int | None = None,
    m: float = 0.01,
) -> list[Case]:
    """Returns every strategy under every delay; a strategy expects the longest delay there can be.

    Args:
        horizons: of the policy.
        strategies: names; see `make_strategy`.
        delays: latency_steps of `Timing`.
        jitter_steps: of `Timing`.
        every: see `make_strategy`.
        m: see `make_strategy`.

    Raises:
        ConfigError: nothing to compare, or a setting does not fit the policy.
    """
    if not strategies or not delays:
        raise ConfigError("expected at least one strategy and one latency_steps, but got none")
    for name, given in (("strategy", strategies), ("latency_steps", delays)):
        if len(set(map(str, given))) < len(given):
            raise ConfigError(f"{name}: each may be named once, but got {', '.join(map(str, given))}")
    found = []
    for name in strategies:
        for delay in delays:
            Timing(make_strategy("chunking", horizons), delay, jitter_steps)  # refuses what is no delay
            strategy = make_strategy(name, horizons, delay=delay + jitter_steps, every=every, m=m)
            found.append(Case(name, Timing(strategy, delay, jitter_steps)))
    return found


def check_guidance(policy: ChunkPolicy, compared: Sequence[Case]) -> None:
    """Raises ConfigError where a case needs a policy that can be guided and this one cannot: now, not in hours."""
    if any(isinstance(case.timing.strategy, RealTimeChunking) for case in compared):
        warm_up_guidance(policy)


def sweep(
    controller: RecedingHorizonController, env_id: str, compared: Sequence[Case], **settings: Any
) -> Iterator[tuple[Case, EvalResult]]:
    """Yields the evaluation of each case, on the same seeds.

    Args:
        controller: its policy is run.
        env_id: see `evaluate`.
        compared: the cases.
        settings: further arguments of `evaluate`.
    """
    for case in compared:
        yield case, evaluate(controller, env_id, timing=case.timing, **settings)


def row(case: Case, result: Content) -> list[str]:
    """Returns a row under `HEAD`."""
    said, rate = result["timing"], result["success_rate"]
    shown = ["-" if said[name] is None else f"{said[name]['mean']:.3g}" for name in ("jerk", "jump", "drift")]
    low, high = result["max_reward"]["ci95"]
    return [
        case.strategy,
        f"{case.timing.latency_steps}" + (f"-{_longest(case)}" if case.timing.jitter_steps else ""),
        f"{result['max_reward']['mean']:.3f} [{low:.3f}, {high:.3f}]",
        "-" if rate is None else f"{rate['mean']:.0%}",
        *shown,
        str(said["starved_steps"]),
        f"{result['latency_ms']['p50']:.1f}",
    ]


def report(done: Sequence[tuple[Case, Content]]) -> dict[str, Any]:
    """Returns the content of latency.json: every case with its eval.json's means, and what was compared."""
    first = done[0][1]
    shared = ("env_id", "env_kwargs", "seed", "policy", "versions", "hardware")
    means = ("episodes", "requested", "max_reward", "success_rate", "return", "timing", "latency_ms")
    found = [{"name": case.name, **{key: result[key] for key in means}} for case, result in done]
    return {**{key: first[key] for key in shared}, "cases": found}


def draw(done: Sequence[tuple[Case, Content]], path: Path, unit: str = "") -> "Figure":
    """Draws reward, success, jerk and jumps over the delay, one line a strategy, with 95 % intervals.

    Args:
        done: what was evaluated, with its eval.json.
        path: the picture's.
        unit: of an action.

    Returns:
        What was drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    for axes, (key, title, measure) in zip(figure.subplots(2, 2).flat, _FIGURES, strict=True):
        for colour, name in zip(_COLOURS * 9, dict.fromkeys(case.strategy for case, _ in done), strict=False):
            points = [
                (case.timing.latency_steps, _figure(result, key)) for case, result in done if case.strategy == name
            ]
            known = [(delay, value) for delay, value in points if value is not None]
            if not known:
                continue
            delays, means = [delay for delay, _ in known], [value["mean"] for _, value in known]
            low, high = ([value["ci95"][side] for _, value in known] for side in (0, 1))
            axes.plot(delays, means, marker="o", color=colour, label=name.replace("_", " "))
            axes.fill_between(delays, low, high, color=colour, alpha=0.15)
        axes.set(title=title, xlabel="delay, env steps", ylabel=measure.format(unit=unit or "action"))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=110)
    return figure


def _longest(case: Case) -> int:
    return case.timing.latency_steps + case.timing.jitter_steps


def _figure(result: Content, key: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (
        result["success_rate"] if key == "success" else {**result["timing"], "max_reward": result["max_reward"]}[key]
    )
    return found
