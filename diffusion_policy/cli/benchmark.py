"""dp-benchmark: tasks x methods x training seeds -> figures with intervals, and a report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.cli.command import config_folder, run_command
from diffusion_policy.errors import ConfigError


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("benchmark", _benchmark)


def _benchmark(config: dict[str, Any], overrides: list[str]) -> int:
    from diffusion_policy.benchmark.results import Results, fallen_below
    from diffusion_policy.benchmark.run import run_suite
    from diffusion_policy.benchmark.suite import Suite
    from diffusion_policy.cli.compose import compose_config

    if not config["out"]:
        raise ConfigError("out: expected a folder for the results, got nothing; give out=runs/benchmark")
    out = Path(str(config["out"])).expanduser()
    name = str(config["choice"]["suite"])
    suite = Suite.from_plain(config["suite"])
    stored = Results.read(Path(str(config["against"])).expanduser()) if config["against"] else None
    conf = config_folder()

    def compose(command: str, words: Sequence[str]) -> dict[str, Any]:
        return compose_config(command, *words, conf=conf)

    plugins = _names(config["plugins"])
    try:
        done = config["report"] or run_suite(suite, out, compose, _names(config["only"]), plugins)
    except KeyboardInterrupt:  # while it collected or judged; a training stops by itself
        done = False
    if not done:
        again = shlex.join(["dp-benchmark", *sys.argv[1:]])  # with --config-dir=..., which overrides leave out
        print(f"interrupted; finished cells stay, go on with: {again}", file=sys.stderr)
        return 130
    _say(suite, name, out)
    if stored is None:
        return 0
    fallen = fallen_below(Results.read(out).within(suite.cells()), stored)
    for each in fallen:
        print(f"fell below: {each}")
    if not fallen:
        print(f"against  {config['against']}: no cell's interval lies wholly below its stored one")
    return 1 if fallen else 0


def _say(suite: Any, name: str, out: Path) -> None:
    from diffusion_policy.benchmark.measures import MEASURES
    from diffusion_policy.benchmark.report import write_report
    from diffusion_policy.benchmark.results import Results
    from diffusion_policy.benchmark.tables import shown

    report = write_report(suite, name, out)
    results = Results.read(out).within(suite.cells())
    measure = MEASURES[suite.measures[0]]
    for task in suite.tasks:
        for method in suite.methods:
            figure = shown(results.estimate(task, method, measure.name), digits=measure.digits)
            print(f"{task:14} {method:14} {measure.name.replace('_', ' ')} {figure}")
    print(f"report   {report}\ntables   {out / 'report.md'}\ncells    {out / 'cells'}")


def _names(only: Any) -> list[str]:
    return [str(only)] if isinstance(only, str) else [str(name) for name in only or ()]


if __name__ == "__main__":
    sys.exit(main())
