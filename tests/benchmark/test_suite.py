from typing import Any

import pytest

from diffusion_policy.benchmark.suite import REPORT_SEED, VALIDATION_SEED, Cell, Suite
from diffusion_policy.errors import ConfigError

PLAIN: dict[str, Any] = {
    "tasks": {"a": {"overrides": ["task=a"]}, "b": {"overrides": ["task=b"], "dataset": "b.zarr"}},
    "methods": {"diffusion": None, "mlp": ["policy=mlp"]},
    "seeds": [0, 7],
    "overrides": ["preset=fast", "training.num_grad_steps=10"],
    "special": {"a/mlp": ["training.num_grad_steps=30"], "*/mlp": ["training.num_grad_steps=20"]},
}


def test_cells_of_the_first_seed_come_first() -> None:
    cells = Suite.from_plain(PLAIN).cells()
    assert len(cells) == 8
    assert {cell.seed for cell in cells[:4]} == {0}
    assert cells[1] == Cell("a", "mlp", 0)
    assert cells[1].name == "a-mlp-s0"


def test_the_most_special_setting_comes_last_and_so_holds() -> None:
    suite = Suite.from_plain(PLAIN)
    assert suite.words(Cell("a", "mlp", 7)) == [
        "task=a", "preset=fast", "training.num_grad_steps=10", "policy=mlp", "training.num_grad_steps=20",
        "training.num_grad_steps=30", "seed=7",
    ]  # fmt: skip
    assert suite.words(Cell("b", "diffusion", 0)) == ["task=b", "preset=fast", "training.num_grad_steps=10", "seed=0"]


def test_method_begins_with_the_policy_of_another_one_of_the_same_task_and_seed() -> None:
    suite = Suite.from_plain({**PLAIN, "begins": {"mlp": "diffusion"}})
    assert suite.before(Cell("a", "mlp", 7)) == Cell("a", "diffusion", 7)
    assert suite.words(Cell("b", "mlp", 7))[-2:] == ["init=b-diffusion-s7", "seed=7"]
    assert suite.before(Cell("a", "diffusion", 7)) is None


def test_checkpoints_are_chosen_and_reported_on_different_seeds() -> None:
    assert VALIDATION_SEED < REPORT_SEED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"begins": {"diffusion": "mlp"}}, r"begins.diffusion: expected a method .* \(none\), but got mlp"),
        ({"begins": {"x": "mlp"}}, "begins.x: expected a method"),
        ({"task": {}}, "unknown setting task, known: tasks"),
        ({"seeds": []}, "at least one task, one method and one seed"),
        ({"axis": "demonstrations"}, "expected methods named by numbers, but got diffusion, mlp"),
        ({"seeds": [-1]}, "whole numbers"),
        ({"special": {"c/mlp": ["x=1"]}}, "'c/mlp' names no cells"),
        ({"seeds": 3}, "must be a list of different numbers, but got 3"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"methods": {"mlp": "policy=mlp"}}, """command line 'suite.methods.mlp=\\["policy=mlp"\\]'"""),
        ({"overrides": "preset=fast"}, "suite.overrides: expected a list of settings"),
        ({"measures": ["succes"]}, "expected some of success, max_reward, return, normalized_return"),
        ({"reference": "difusion"}, "expected one of the methods diffusion, mlp, but got difusion"),
        ({"judging": {"validation_episodes": 60_000}}, "would reach the reported seeds"),
        ({"judging": {"protocols": ["best"]}}, "must hold last"),
        ({"judging": {"protocols": ["last", "reported"]}}, "expected last or best, but got reported"),
        ({"judging": {"episodes": 0}}, "judging.episodes must be at least 1"),
        ({"tasks": {"a": {"overrides": ["task=a"], "collect_seed": 100_000}}}, "collect_seed in"),
    ],
)
def test_suites_that_cannot_be_run_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Suite.from_plain({**PLAIN, **change})
