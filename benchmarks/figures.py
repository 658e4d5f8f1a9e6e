"""Stored figures of benchmarks, and how tables of them are written."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Rows = list[list[str]]


def stored(name: str) -> dict[str, Any]:
    """Returns the figures of a benchmark."""
    figures: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return figures


def table(head: list[str], rows: Rows) -> str:
    """Returns a Markdown table, numbers to the right."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, align, *rows])


def machine(figures: dict[str, Any]) -> str:
    """Returns on what it was measured."""
    said, versions = figures["hardware"], figures["versions"]
    return f"{said['cpu']}, {figures['threads']} threads, torch {versions['torch'].partition('+')[0]}"


def interval(mean: dict[str, Any] | None, digits: int) -> str:
    """Returns a mean with its interval; - where there is none."""
    if mean is None:
        return "-"
    low, high = mean["ci95"]
    return f"{mean['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
