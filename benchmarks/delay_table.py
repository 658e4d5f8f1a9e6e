"""What a delay does to a policy, as Markdown, of the latency.json that `dp-eval latency_steps=...` leaves."""

import json
from pathlib import Path
from typing import Any

from figures import table

HEAD = ["strategy", "delay, steps", "max reward", "success", "jerk", "jump at joints", "elsewhere", "without a plan"]
NOT_RUN = "Not run yet: `scripts/reproduce/delay.sh`."


def delay(path: Path) -> str:
    """Returns the table of one policy, or that there is none yet."""
    if not path.is_file():
        return NOT_RUN
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    cases = figures["cases"]
    return (
        f"{table(HEAD, [row(case) for case in cases])}\n\n"
        f"({cases[0]['episodes']} episodes each, seeds from {figures['seed']}; 95 % intervals. "
        f"Jerk in px / step³, jumps of speed where another plan comes into force in px / step²; without a "
        f"plan: env steps of all episodes. {figures['hardware']['cpu']}.)"
    )


def row(case: dict[str, Any]) -> list[str]:
    """Returns a case's row under `HEAD`."""
    timing, success = case["timing"], case["success_rate"]
    return [
        case["name"].rpartition("-")[0].replace("_", " "),
        str(timing["latency_steps"]),
        interval(case["max_reward"], 3),
        "-" if success is None else f"{success['mean']:.0%}",
        *(interval(timing[name], 1) for name in ("jerk", "jump", "drift")),
        str(timing["starved_steps"]),
    ]


def interval(mean: dict[str, Any] | None, digits: int) -> str:
    """Returns a mean with its interval; - where there is none."""
    if mean is None:
        return "-"
    low, high = mean["ci95"]
    return f"{mean['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
