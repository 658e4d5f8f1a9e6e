"""dp-eval latency_steps=... strategy=...: what delay does to a policy, as table, picture and JSON."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.settings import plain
from diffusion_policy.versions import installed_versions

if TYPE_CHECKING:
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.rollout.latency import Case, Content


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
    """Evaluates the cases that `out` does not hold yet, one by one, and keeps what is done; returns the exit code.

    Raises:
        ConfigError: what `out` holds was made with other settings.
        DataError: an eval.json there is damaged.
    """
    from diffusion_policy.rollout.evaluate import EvaluationInterrupted
    from diffusion_policy.rollout.latency import sweep

    _refuse_others(compared, out)
    unit = controller.policy.action_spec.unit
    done = {case: kept for case in compared if (kept := _kept(case, controller, env_id, settings, out))}
    if done:
        print(f"{len(done)} of {len(compared)} cases are there already", file=sys.stderr)
    code = 0
    try:
        for case, result in sweep(controller, env_id, [each for each in compared if each not in done], **settings):
            result.to_csv(out / case.name / "episodes.csv")
            result.to_json(out / case.name / "eval.json")  # last: with it the case counts as done
            done[case] = result.to_dict()
            print(f"{len(done)} of {len(compared)} {case.name}: {result.summary()}", file=sys.stderr)
            _write(_in_order(done, compared), out, unit)
    except EvaluationInterrupted:
        print(f"interrupted: {len(done)} of {len(compared)} cases are kept; resume=true goes on", file=sys.stderr)
        code = 130
    if done:
        found = _in_order(done, compared)
        _write(found, out, unit)
        _print(found, unit)
        print(f"results  {out / 'latency.json'}\npicture  {out / 'latency.png'}")
    return code


def _refuse_others(compared: "Sequence[Case]", out: Path) -> None:
    """Raises ConfigError where `out` holds cases that are not asked for: the table and picture would lose them."""
    names = {case.name for case in compared}
    others = sorted(path.parent.name for path in out.glob("*/eval.json") if path.parent.name not in names)
    if others:
        raise ConfigError(
            f"{out} holds {', '.join(others)}, too; name all delays and strategies (what is done stays), or choose "
            f"another out="
        )


def _kept(
    case: "Case", controller: "RecedingHorizonController", env_id: str, settings: dict[str, Any], out: Path
) -> "Content | None":
    """Returns the eval.json of a case that was done before, after checking that it answers the same question."""
    from diffusion_policy.rollout.provenance import hardware, policy_facts

    file = out / case.name / "eval.json"
    if not file.exists():
        return None
    try:
        had = json.loads(file.read_text(encoding="utf-8"))
        before = {**had, **had["timing"], "batch_size": had["latency_ms"]["batch_size"]}
        policy = {name: value for name, value in before["policy"].items() if name != "path"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({type(error).__name__}: {error}); remove it to evaluate anew") from error
    now: dict[str, Any] = {
        "env_id": env_id,
        "env_kwargs": settings.get("env_kwargs") or {},
        "seed": settings["seed"],
        "requested": settings["episodes"],
        "batch_size": settings.get("batch_size", before["batch_size"]),
        **case.timing.to_dict(),
        "versions": installed_versions(),
        "hardware": hardware(),
    }
    wanted = {name: value for name, value in policy_facts(controller.policy, controller.path).items() if name != "path"}
    for name, value, found in [*((name, now[name], before.get(name)) for name in now), ("policy", wanted, policy)]:
        if (said := json.loads(json.dumps(plain(value)))) != found:
            raise ConfigError(
                f"{file} was made with {name} {found}, but got {said}; resume with the same settings on the same "
                f"machine, or choose another out="
            )
    return cast("Content", had)


def _in_order(done: "dict[Case, Content]", compared: "Sequence[Case]") -> "list[tuple[Case, Content]]":
    return [(case, done[case]) for case in compared if case in done]


def _write(done: "Sequence[tuple[Case, Content]]", out: Path, unit: str) -> None:
    from diffusion_policy.rollout.latency import draw, report

    (out / "latency.json").write_text(json.dumps(report(done), indent=2, default=str) + "\n", encoding="utf-8")
    draw(done, out / "latency.png", unit)


def _print(done: "Sequence[tuple[Case, Content]]", unit: str) -> None:
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
