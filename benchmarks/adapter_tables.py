"""What policies reach in other people's environments, as Markdown."""

import json

from figures import RESULTS, interval, table

TASKS = {
    "adroit_door": "Adroit door, 25 human demonstrations",
    "fetch": "FetchPickAndPlace, 200 episodes of the script",
    "ogbench_cube": "OGBench cube-single, 200 episodes of the oracle",
    "metaworld": "Meta-World pick-place, 100 episodes of the script",
}
"""By script in scripts/reproduce."""


def adapters() -> str:
    """Returns what evaluations of policies came to, by task."""
    rows = []
    for script, title in TASKS.items():
        file = RESULTS / "adapters" / f"{script}.json"
        if not file.is_file():
            rows.append([title, "not run yet", "", "", ""])
            continue
        figures = json.loads(file.read_text(encoding="utf-8"))
        parts = figures.get("subgoals", {}).get("each", {})
        rows.append(
            [
                title,
                str(figures["episodes"]),
                interval(figures["success_rate"], 2),
                interval(figures["return"], 0 if abs(figures["return"]["mean"]) >= 100 else 2),
                ", ".join(f"{name} {each['mean']:.2f}" for name, each in parts.items()) or "-",
            ]
        )
    head = ["task", "episodes", "success", "return", "on the way"]
    return f"{table(head, rows)}\n\n(Seeds from 100000; one training seed; 95 % intervals.)"
