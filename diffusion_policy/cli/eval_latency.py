"""dp-eval latency_steps=... strategy=...: what delay does to a policy, as table, picture and JSON."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffusion_policy.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.rollout.latency import Case
    from diffusion_policy.rollout.result import EvalResult


def is_asked(config: dict[str, Any]) -> bool:
    """Whether time passes while the policy plans.

    Raises:
        ConfigError: settings of delay without a delay.
    """
    if config["latency_steps"] is not None or config["strategy"] is not None:
        return True
    given = [name for name, plain in (("jitter_steps", 0), ("replan_every", None), ("ensemble_m", 0.01))
             if config[name] != plain]  # fmt: skip
    if given:
        raise ConfigError(f"{', '.join(given)}: nothing is late in lock-step; give latency_steps=[0,1,2,4] too")
    return False


def planned(config: dict[str, Any], controller: "RecedingHorizonController") -> "list[Case]":
    """Returns the cases that were asked for.

    Raises:
        ConfigError: a setting is of another kind, or does not fit the policy.
    """
    from diffusion_policy.rollout.latency import cases, check_guidance

    every, m = config["replan_every"], config["ensemble_m"]
    if every is not None and (isinstance(every, bool) or not isinstance(every, int)):
        raise ConfigError(f"replan_every must be a whole number of env steps, or null, but got {every!r}")
    if isinstance(m, bool) or not isinstance(m, (int, float)):
        raise ConfigError(f"ensemble_m must be a number, but got {m!r}")
    if config["overlay"]:
        raise ConfigError("overlay=true shows what lock-step control would sample; leave it out, or latency_steps")
    compared = cases(
        controller.policy.horizons,
        [str(name) for name in _listed("chunking" if config["strategy"] is None else config["strategy"])],
        _listed(0 if config["latency_steps"] is None else config["latency_steps"]),
        jitter_steps=config["jitter_steps"],
        every=every,
        m=float(m),
    )
    check_guidance(controller.policy, compared)
    return compared


def evaluate_cases(
    compared: "Sequence[Case]",
    controller: "RecedingHorizonController",
    env_id: str,
    settings: dict[str, Any],
    out: Path,
) -> int:
    """Evaluates case by case, and keeps what is done of it; returns the exit code."""
    from diffusion_policy.rollout.evaluate import EvaluationInterrupted
    from diffusion_policy.rollout.latency import sweep

    done: list[tuple[Case, EvalResult]] = []
    code = 0
    try:
        for case, result in sweep(controller, env_id, compared, **settings):
            done.append((case, result))
            result.to_json(out / case.name / "eval.json")
            result.to_csv(out / case.name / "episodes.csv")
            _write(done, out, controller.policy.action_spec.unit)
            print(f"{len(done)} of {len(compared)} {case.name}: {result.summary()}", file=sys.stderr)
    except EvaluationInterrupted:
        print(f"interrupted: {len(done)} of {len(compared)} cases are kept", file=sys.stderr)
        code = 130
    if done:
        _print(done, controller.policy.action_spec.unit)
        print(f"results  {out / 'latency.json'}\npicture  {out / 'latency.png'}")
    return code


def _write(done: "Sequence[tuple[Case, EvalResult]]", out: Path, unit: str) -> None:
    from diffusion_policy.rollout.latency import draw, report

    (out / "latency.json").write_text(json.dumps(report(done), indent=2, default=str) + "\n", encoding="utf-8")
    draw(done, out / "latency.png", unit)


def _print(done: "Sequence[tuple[Case, EvalResult]]", unit: str) -> None:
    from diffusion_policy.rollout.latency import HEAD, row

    table = Table(box=SIMPLE_HEAD)
    for name in HEAD:
        table.add_column(name, no_wrap=True)
    for case, result in done:
        table.add_row(*row(case, result))
    console = Console()
    Console(width=max(console.width, 100)).print(table)  # narrower, columns would vanish
    print(
        f"jerk in {unit or 'action'} / env step³; jump in {unit or 'action'} / env step²: change of speed where another"
    )
    print("plan comes into force, elsewhere: at other steps; starved: env steps without a plan; ms: of a policy call")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
