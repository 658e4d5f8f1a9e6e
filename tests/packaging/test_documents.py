"""Documents say what benchmarks measured."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diffusion_policy.data.doctor.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def readme(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results(readme: ModuleType, tmp_path: Path, monkeypatch) -> Path:
    """An empty folder in the place of benchmarks/results."""
    for name in ("figures", "adapter_tables", "robot_tables", "synthetic_tables"):
        monkeypatch.setattr(sys.modules[name], "RESULTS", tmp_path)
    return tmp_path


def test_tables_in_the_documents_are_those_of_the_stored_figures(readme: ModuleType) -> None:
    for document in readme.documents():
        text = document.read_text(encoding="utf-8")
        assert readme.filled(text) == text, f"make {document.name} anew: python benchmarks/readme.py"
    assert readme.scaling() == (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_every_table_has_one_place_in_the_documents(readme: ModuleType) -> None:
    texts = [document.read_text(encoding="utf-8") for document in readme.documents()]
    for name in readme.parts():
        for marker in readme.markers(name):
            assert sum(text.count(marker) for text in texts) == 1, marker


def test_links_and_pictures_of_the_documents_lead_somewhere(readme: ModuleType) -> None:
    for document in readme.documents():
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = (document.parent / path) if path else document
            assert target.exists(), f"{document.name}: {link}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
                known = [re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads]
                assert anchor in known, f"{document.name}: {link}"


def test_every_finding_of_inspect_stands_in_its_document() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    table = text[text.index("## What dp-inspect finds") : text.index("## Mending")]
    assert re.findall(r"^\| [^|]*\(`([a-z-]+)`\)", table, flags=re.MULTILINE) == list(KINDS)


def test_another_figure_makes_another_table(readme: ModuleType, tmp_path: Path, monkeypatch) -> None:
    figures = readme.stored("latency")
    figures["sizes"]["small"]["engines"]["aoti float32"]["ms"] *= 2
    (tmp_path / "latency.json").write_text(json.dumps(figures))
    before = readme.latency()
    monkeypatch.setattr(sys.modules["figures"], "RESULTS", tmp_path)
    assert readme.latency() != before


def test_delays_are_a_table_of_what_dp_eval_leaves(readme: ModuleType, tmp_path: Path) -> None:
    from robot_tables import HEAD, NOT_RUN, delay, delay_short

    def case(name: str, steps: int, jump: float | None) -> dict[str, Any]:
        means = {key: {"mean": value, "ci95": [value - 1, value + 1]} for key, value in (("jerk", 3.0), ("drift", 2.0))}
        timing = {"latency_steps": steps, "starved_steps": 7, "jump": jump and {"mean": jump, "ci95": [1, 2]}, **means}
        score = {"mean": 0.5, "ci95": [0.25, 0.75]}
        return {"name": name, "episodes": 50, "max_reward": score, "success_rate": score, "timing": timing}

    assert delay(tmp_path / "10hz.json") == delay_short(tmp_path) == NOT_RUN
    figures = {
        "seed": 100000,
        "hardware": {"cpu": "a CPU"},
        "cases": [case("real_time-4", 4, 1.5), case("x-8", 8, None)],
    }
    (tmp_path / "10hz.json").write_text(json.dumps(figures))
    head, _, first, second, *rest = delay(tmp_path / "10hz.json").splitlines()
    assert head.count("|") == first.count("|") == second.count("|") == len(HEAD) + 1
    assert first == (
        "| real time | 4 | 0.500 [0.250, 0.750] | 50% | 3.0 [2.0, 4.0] | 1.5 [1.0, 2.0] | 2.0 [1.0, 3.0] | 7 |"
    )
    assert second.split(" | ")[5] == "-"
    assert rest[-1].startswith("(50 episodes each, seeds from 100000;")
    assert delay_short(tmp_path).splitlines()[2:4] == [
        "| 10 Hz, real time | 0.50 / 1.5 |  |",
        "| 10 Hz, x |  | 0.50 / - |",
    ]


def test_success_in_other_peoples_environments_is_a_table_of_eval_json(results: Path) -> None:
    from adapter_tables import TASKS, adapters

    mean = {"mean": 0.5, "ci95": [0.25, 0.75]}
    far = {"mean": -250.0, "ci95": [-350.0, -150.0]}
    figures = {"episodes": 100, "success_rate": mean, "return": far, "subgoals": {"each": {"open": mean}}}
    (results / "adapters").mkdir()
    (results / "adapters" / "fetch.json").write_text(json.dumps(figures))
    rows = adapters().splitlines()[2 : 2 + len(TASKS)]
    assert [row.split(" | ")[1:] for row in rows if "Fetch" in row] == [
        ["100", "0.50 [0.25, 0.75]", "-250 [-350, -150]", "open 0.50 |"]
    ]
    assert sum("not run yet" in row for row in rows) == len(TASKS) - 1
    (results / "adapters" / "fetch.json").write_text(json.dumps(figures | {"return": mean}))
    assert "| 0.50 [0.25, 0.75] | 0.50 [0.25, 0.75] |" in adapters(), "a small return keeps its decimals"


def test_synthers_speed_is_a_table_of_what_the_benchmark_leaves(results: Path) -> None:
    from synthetic_tables import augment_step

    assert augment_step().startswith("Not run yet")
    plain = {"step_ms": 40.0, "samples_per_s": 80.0, "diagnostics": {"ks_mean": 0.9}}
    ours = {"step_ms": 20.0, "samples_per_s": 320.0, "diagnostics": {"ks_mean": 0.95}}
    said = {"width": 512, "commit": "0123456789", "hardware": {"cpu": "a CPU"}}
    (results / "augment_step.json").write_text(json.dumps({**said, "plain": plain, "ours": ours}))
    lines = augment_step().splitlines()
    assert lines[2:4] == ["| a step of training, ms | 40.0 | 20.0 | 2.0 |", "| samples a second | 80 | 320 | 4.0 |"]
    assert lines[7] == "| ks mean | 0.9 | 0.95 |"


def test_a_robots_misses_are_a_table_of_what_the_benchmark_leaves(results: Path) -> None:
    from robot_tables import closed_loop

    assert closed_loop().startswith("Not run yet")
    each = {"hz": 50.0, "load": "first", "ticks": 30000, "misses": 3, "misses_stolen": 2}
    each |= {"misses_of_sleep": 1, "ahead": 40}
    each |= {name: {"p50": 1.26, "p99": 3.0} for name in ("echo_ms", "over_inference_ms")}
    each |= {"round_trip_ms": {"p50": 1.26, "p99": None}}  # more than one in a hundred came later than was waited for
    hardware = {"cpu": "a CPU", "cpu_cores": 2}
    figures = {"minutes": 10.0, "late_ms": 10.0, "policy": "small", "hardware": hardware, "runs": [each]}
    (results / "closed_loop.json").write_text(json.dumps(figures))
    head, _, first, *rest = closed_loop().splitlines()
    assert head.count("|") == first.count("|")
    assert first.startswith(
        "| 50 Hz, all cores busy, server and robot at nice -10 | 30000 | 3 | 2 | 1 | 40 | 1.3 / - | 1.3 / 3.0 |"
    )
    assert rest[-1].endswith("a CPU, 2 threads.)")


def test_every_stored_figure_says_on_what_it_was_measured() -> None:
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert {"versions", "hardware"} <= set(json.loads(file.read_text())), file.name
