"""What a delay does to a policy, and whether a robot gets its actions in time, as Markdown."""

import json
from pathlib import Path
from typing import Any

from figures import RESULTS, interval, stored, table

HEAD = ["strategy", "delay, steps", "max reward", "success", "jerk", "jump at joints", "elsewhere", "without a plan"]
NOT_RUN = "Not run yet: `scripts/reproduce/delay.sh`."


def delay(path: Path) -> str:
    """Returns the table of the latency.json that `dp-eval latency_steps=...` left, or that there is none yet."""
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


def delay_short(folder: Path) -> str:
    """Returns one table of both rates, max reward and jumps at joints by steps of delay, or that there is none yet."""
    files = {rate: folder / f"{rate}hz.json" for rate in (10, 50) if (folder / f"{rate}hz.json").is_file()}
    if not files:
        return NOT_RUN
    cells: dict[tuple[int, str], dict[int, str]] = {}
    for rate, file in files.items():
        figures = json.loads(file.read_text(encoding="utf-8"))
        for case in figures["cases"]:
            timing, strategy = case["timing"], case["name"].rpartition("-")[0].replace("_", " ")
            jump = "-" if timing["jump"] is None else f"{timing['jump']['mean']:.1f}"
            said = f"{case['max_reward']['mean']:.2f} / {jump}"
            cells.setdefault((rate, strategy), {})[timing["latency_steps"]] = said
    steps = sorted({each for row in cells.values() for each in row})
    head = ["max reward / jump at joints", *(f"{each} step{'' if each == 1 else 's'} late" for each in steps)]
    told = [
        [f"{rate} Hz, {strategy}", *(row.get(each, "") for each in steps)] for (rate, strategy), row in cells.items()
    ]
    return (
        f"{table(head, told)}\n\n({figures['cases'][0]['episodes']} episodes each; px / step², how much the speed "
        "jumps where another plan comes into force.)"
    )


LOADS = {"idle": "idle", "full": "all cores busy", "first": "all cores busy, server and robot at nice -10"}


def closed_loop() -> str:
    """Returns the table of `benchmarks/closed_loop.py`, or that there is none yet."""
    if not (RESULTS / "closed_loop.json").is_file():
        return "Not run yet: `python benchmarks/closed_loop.py`."
    figures = stored("closed_loop")
    rows = []
    for each in figures["runs"]:
        trip, echo, over = each["round_trip_ms"], each["echo_ms"], each["over_inference_ms"]
        counts = [str(each[name]) for name in ("misses", "misses_stolen", "misses_of_sleep", "ahead")]
        times = [" / ".join(shown(each_of[share]) for share in ("p50", "p99")) for each_of in (trip, echo, over)]
        rows.append([f"{each['hz']:g} Hz, {LOADS[each['load']]}", str(each["ticks"]), *counts, *times])
    head = ["", "ticks", "missed", "of them stolen", "by sleep alone", "said before"]
    head += ["answer, ms", "echo, ms", "plan over its computation, ms"]
    machine = f"{figures['hardware']['cpu']}, {figures['hardware']['cpu_cores']} threads"
    return (
        f"{table(head, rows)}\n\n({figures['minutes']:g} minutes each, p50 / p99; {figures['policy']}; missed: later "
        f"than {figures['late_ms']:g} ms; stolen: while the hypervisor kept a processor that was wanted; said before: "
        f"answered later than in 5 ms, and done as it was told before, in time if not missed. {machine}.)"
    )


def shown(value: float | None) -> str:
    """Returns milliseconds; a dash where they are without end."""
    return "-" if value is None else f"{value:.1f}"
