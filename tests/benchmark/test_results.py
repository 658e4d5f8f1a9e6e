"""Figures of several cells put together: pooled, by training seed, paired."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_policy.benchmark import plots
from diffusion_policy.benchmark.report import write_report
from diffusion_policy.benchmark.results import CellResult, Results, fallen_below
from diffusion_policy.benchmark.suite import Cell, Suite
from diffusion_policy.benchmark.tables import tables
from diffusion_policy.errors import DataError, MissingFileError

EPISODES = 60
SUITE = Suite.from_plain(
    {
        "tasks": {"easy": {"overrides": ["task=easy"]}, "hard": {"overrides": ["task=hard"]}},
        "methods": {"diffusion": [], "mlp": ["policy=mlp"]},
        "seeds": [0, 1],
        "judging": {"episodes": EPISODES},
    }
)


def result(task: str, method: str, seed: int, success: np.ndarray, **changes: Any) -> CellResult:
    episodes = {"seed": list(range(len(success))), "success": success.tolist(), "max_reward": (0.5 * success).tolist()}
    figures = {
        "format": 1,
        "task": task,
        "method": method,
        "seed": seed,
        "words": ["preset=fast"],
        "judging": {"episodes": EPISODES},
        "dataset": {"digest": "abcdef0123456789"},
        "training": {
            "wall_s": 120.0,
            "cpu_s": 240.0,
            "rollout_s": 5.0,
            "complete": True,
            "grad_steps": 10,
            "parameters": 2_500_000,
        },
        "latency_ms": {"p50": 4.5, "p95": 5.0},
        "evaluations": {"last": {"per_episode": episodes}},
        "versions": {"torch": "2.13"},
        "commit": "0123abc",
        "hardware": {"cpu": "abacus", "torch_threads": 2, "gpu": None},
    }
    return CellResult(Cell(task, method, seed), {**figures, **changes})


@pytest.fixture
def results() -> Results:
    rng = np.random.default_rng(0)
    hard = rng.random(EPISODES) < 0.5  # some episodes are hard for everybody
    worse = hard & (rng.random(EPISODES) < 0.8)
    return Results(
        [
            result("easy", "diffusion", 1, hard),
            result("easy", "diffusion", 0, hard),
            result("easy", "mlp", 0, worse),
        ]
    )


def test_success_is_pooled_over_training_seeds_and_told_for_each(results: Results) -> None:
    pooled, seeds = results.estimate("easy", "diffusion", "success"), results.by_seed("easy", "diffusion")
    assert pooled is not None
    assert list(seeds) == [0, 1]
    assert pooled.mean == pytest.approx(np.mean(list(seeds.values())))
    assert results.estimate("hard", "mlp", "success") is None
    assert results.by_seed("hard", "mlp") == {}


def test_lead_is_paired_over_evaluation_seeds(results: Results) -> None:
    lead = results.lead("easy", "diffusion", "mlp", "success")
    back = results.lead("easy", "mlp", "diffusion", "success")
    better, worse = (results.estimate("easy", method, "success") for method in ("diffusion", "mlp"))
    assert None not in (lead, back, better, worse)
    assert lead.mean == pytest.approx(better.mean - worse.mean)
    assert lead.mean == pytest.approx(-back.mean)
    assert lead.ci95[0] > 0  # the same episodes: sure
    assert worse.ci95[1] > better.ci95[0]  # apart: not
    assert results.lead("hard", "diffusion", "mlp", "success") is None


def test_lead_refuses_different_episodes(results: Results) -> None:
    results.cells.append(result("easy", "mlp", 1, np.ones(5, bool)))
    with pytest.raises(DataError, match=r"judged on \[5, 60\] episodes"):
        results.lead("easy", "diffusion", "mlp", "success")


def test_regression_is_an_interval_wholly_below_the_stored_one() -> None:
    def cells(successes: int) -> Results:
        return Results([result("easy", "mlp", 0, np.arange(EPISODES) < successes)])

    assert fallen_below(cells(55), cells(57)) == []
    assert fallen_below(cells(60), cells(30)) == []
    (said,) = fallen_below(cells(30), cells(57))
    assert said.startswith("easy-mlp-s0: success 0.50")
    with pytest.raises(DataError, match="no cell in common with the stored ones, easy-mlp-s0"):
        fallen_below(Results([result("easy", "mlp", 5, np.zeros(9, bool))]), cells(57))
    longer = Results([result("easy", "mlp", 0, np.ones(9, bool), words=["preset=best"])])
    with pytest.raises(
        DataError, match="easy-mlp-s0 has other settings than the stored one: preset=fast there, preset=best now"
    ):
        fallen_below(longer, cells(57))


def test_tables_say_not_run_where_nothing_is(results: Results) -> None:
    made = {table.title: table for table in tables(results, ["easy", "hard"], ["diffusion", "mlp"], "diffusion")}
    rates = made["Success rate, last checkpoint"]
    assert rates.rows[1] == ["hard", "not run", "not run"]
    assert rates.rows[0][1].count(",") == 2  # an interval, two seeds
    assert made["Lead of diffusion: success rate"].rows[0][1].startswith("+")
    assert made["Cost"].rows[0][1] == "2.0 min (4.0 min CPU), 10 steps, 2.5 M, 4.5 ms"
    assert "Success rate, best checkpoint by validation seeds" not in made
    assert not any(title.startswith("Behaviour") for title in made)


def test_lost_time_is_told(results: Results) -> None:
    results.cells[-1].figures["training"]["complete"] = False
    made = {table.title: table for table in tables(results, ["easy"], ["mlp"], "diffusion")}
    assert made["Cost"].rows[0][1].startswith("2.0 min at least")


def test_short_trainings_cost_seconds(results: Results) -> None:
    results.cells[-1].figures["training"].update(wall_s=3.2, cpu_s=119.0)
    made = {table.title: table for table in tables(results, ["easy"], ["mlp"], "diffusion")}
    assert made["Cost"].rows[0][1].startswith("3 s (119 s CPU)")


@pytest.mark.parametrize(
    ("methods", "reference", "said", "title"),
    [
        (["mlp", "diffusion"], None, "those of diffusion unless", "Lead of diffusion"),
        (["mlp", "bet"], None, "Compared with mlp, the first method: the suite names no reference", "Lead of mlp"),
        (["mlp", "bet"], "bet", "those of bet unless", "Lead of bet"),
    ],
)
def test_report_compares_with_a_method_of_the_suite(
    methods: list[str], reference: str | None, said: str, title: str, tmp_path: Path
) -> None:
    plain = {"tasks": {"easy": {"overrides": []}}, "methods": dict.fromkeys(methods), "seeds": [0]}
    (tmp_path / "cells").mkdir()
    for method in methods:
        cell = result("easy", method, 0, np.ones(4, bool))
        cell.figures["hardware"]["torch_threads"] = 1
        (tmp_path / "cells" / f"{method}.json").write_text(json.dumps(cell.figures))
    write_report(Suite.from_plain({**plain, "reference": reference}), "small", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert said in text
    assert f"## {title}: success rate" in text
    assert "2 of 2 cells are finished: 1 task, 2 methods, training seed 0." in text
    assert ", 1 thread, GPU" in text


def test_report_holds_tables_pictures_and_protocol(results: Results, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for each in results.cells:
        (tmp_path / "cells" / f"{each.cell.name}.json").write_text(json.dumps(each.figures))
    html = write_report(SUITE, "two <tasks>", tmp_path).read_text()
    assert "two &lt;tasks&gt;" in html
    assert html.count("<table>") == 5
    text = (tmp_path / "report.md").read_text()
    assert "3 of 8 cells are finished" in text
    assert "seeds 100000 to 100059" in text
    assert "Commit 0123abc" in text
    assert "| easy | " in text
    assert (tmp_path / "results.png").stat().st_size > 5000
    assert (tmp_path / "costs.png").stat().st_size > 5000


def test_report_tells_of_every_data_set_that_a_task_was_trained_on(results: Results, tmp_path: Path) -> None:
    first = {**results.cells[0].figures, "dataset": {"digest": "made again elsewhere"}}
    (tmp_path / "cells").mkdir()
    for each in [CellResult(results.cells[0].cell, first), *results.cells[1:]]:
        (tmp_path / "cells" / f"{each.cell.name}.json").write_text(json.dumps(each.figures))
    write_report(SUITE, "two tasks", tmp_path)
    assert "Demonstrations: easy abcdef012345, easy made again e." in (tmp_path / "report.md").read_text()


def test_report_of_numbered_methods_draws_curves(tmp_path: Path) -> None:
    plain = {
        "axis": "demonstrations",
        "methods": {"10": [], "50": []},
        "tasks": {"easy": {"overrides": []}},
        "seeds": [0],
    }
    (tmp_path / "cells").mkdir()
    for method, good in (("10", 20), ("50", 40)):
        cell = result("easy", method, 0, np.arange(EPISODES) < good)
        (tmp_path / "cells" / f"{cell.cell.name}.json").write_text(json.dumps(cell.figures))
    write_report(Suite.from_plain(plain), "counts", tmp_path)
    assert (tmp_path / "results.png").stat().st_size > 5000
    assert "costs.png" not in (tmp_path / "report.md").read_text()


def test_folders_without_results_and_damaged_cells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no finished cell"):
        Results.read(tmp_path)
    (tmp_path / "cells").mkdir()
    file = tmp_path / "cells" / "a.json"
    whole = result("a", "b", 0, np.ones(2)).figures
    for content, said in (
        ("{", "it is not whole JSON; remove it"),
        ("{}", "it lacks 'format'; remove it"),
        ("[]", "its values are not those of a cell; remove it"),
        (json.dumps({**whole, "seed": "x"}), "its values are not those of a cell; remove it"),
        (json.dumps({**whole, "format": 9}), "has format 9, this version reads up to 1; upgrade"),
    ):
        file.write_text(content)
        with pytest.raises(DataError, match=rf"a\.json .*{said}"):
            Results.read(tmp_path)


def test_environments_that_say_no_success_still_have_rewards(tmp_path: Path) -> None:
    silent = result("easy", "mlp", 0, np.ones(4))
    silent.figures["evaluations"]["last"]["per_episode"]["success"] = [None] * 4
    results = Results([silent])
    assert results.estimate("easy", "mlp", "success") is None
    assert results.estimate("easy", "mlp", "max_reward") is not None
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps(silent.figures))
    assert write_report(SUITE, "silent", tmp_path).is_file()


def test_returns_are_told_on_the_scale_of_their_references(tmp_path: Path) -> None:
    cell = result("easy", "mlp", 0, np.ones(4))
    judged = cell.figures["evaluations"]["last"]
    judged["env_id"] = "Hopper-v5"
    judged["per_episode"]["return"] = [-20.272305, 3234.3, 3234.3, -20.272305]  # random and expert
    results = Results([cell])
    assert cell.column("normalized_return") == pytest.approx([0, 100, 100, 0])
    estimate = results.estimate("easy", "mlp", "normalized_return")
    assert estimate is not None
    assert estimate.mean == pytest.approx(50)
    told = tables(results, ["easy"], ["mlp"], "mlp", ["normalized_return", "return"])
    assert told[0].title == "Normalised return (D4RL reference, env v5), last checkpoint"
    assert told[0].rows[0][1].startswith("50.0 [")
    assert told[1].rows[0][1].startswith("1607 [")
    judged["env_id"] = "Elsewhere-v0"
    assert cell.column("normalized_return") == []
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps(cell.figures))
    suite = replace(SUITE, measures=("return",))
    assert "| easy | not run | 1607 [" in write_report(suite, "returns", tmp_path).with_suffix(".md").read_text()


def test_cells_that_the_suite_does_not_name_are_left_out(results: Results) -> None:
    assert len(results.within(SUITE.cells()).cells) == 3
    results.cells.append(result("easy", "mlp", 9, np.ones(EPISODES)))
    assert len(results.within(SUITE.cells()).cells) == 3


@pytest.fixture
def figures(monkeypatch) -> list[Any]:
    """Figures that were drawn."""
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, picture: drawn.append(figure))
    return drawn


def test_bars_say_what_they_show_and_a_bar_of_zero_shows(figures: list[Any], tmp_path: Path) -> None:
    results = Results([result("easy", "mlp", seed, np.zeros(4, bool)) for seed in (0, 1)])
    plots.draw_results(results, ["easy"], ["mlp"], tmp_path / "a.png")
    (figure,) = figures
    assert figure.get_supxlabel() == "bars: mean with 95 % interval; dots: training seeds"
    (axes,) = figure.axes
    assert any(each.get_segments()[0][:, 1].tolist() == [0, 0] for each in axes.collections)
    dots = [line.get_xdata() for line in axes.lines if len(line.get_ydata()) == 2]
    assert any(np.allclose(sorted(each), [-0.15, 0.15]) for each in dots)


def test_costs_stand_on_an_axis_that_is_called_logarithmic(figures: list[Any], tmp_path: Path) -> None:
    cells = [result("easy", method, 0, np.ones(4, bool)) for method in ("mlp", "act")]
    cells[0].figures["training"]["wall_s"] = 20.0
    plots.draw_costs(Results(cells), ["easy"], ["mlp", "act"], tmp_path / "a.png")
    (axes,) = figures[0].axes
    assert figures[0].get_supxlabel().endswith("(logarithmic)")
    low, high = axes.get_xlim()
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3
