"""What a run says of itself: curves, a note while it trains, figures at the end."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.training.curves import draw_curves
from diffusion_policy.training.metrics import MetricsLog
from diffusion_policy.training.reporting import ProgressHook, run_summary
from diffusion_policy.training.run import train
from tests.training.test_hooks import FakeLoop

TRAINING, HELD_OUT = (0, 114, 178), (213, 94, 0)
VALIDATION = {"loss": 0.2, "train_loss": 0.1, "action_rmse": 12.345, "train_action_rmse": 6.0}


def drawn(folder: Path, *records: tuple[str, int, dict[str, float]]) -> np.ndarray:
    log = MetricsLog(folder / "metrics.jsonl")
    for record in records:
        log.record(*record)
    draw_curves(log.path, folder / "curves.png", "px")
    return np.asarray(Image.open(folder / "curves.png").convert("RGB"))


def shows(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=2).any())


def test_curves_have_one_colour_for_one_meaning_and_no_panel_without_data(tmp_path: Path) -> None:
    steps = (100, 200)
    losses = [("train", step, {"loss": 1 / step}) for step in steps]
    one = drawn(tmp_path, *losses)
    assert (shows(one, TRAINING), shows(one, HELD_OUT)) == (True, False)
    two = drawn(tmp_path, *losses, *(("validation", step, VALIDATION) for step in steps))
    assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
    for half in (two[:, : two.shape[1] // 2], two[:, two.shape[1] // 2 :]):
        assert shows(half, TRAINING)
        assert shows(half, HELD_OUT)
    three = drawn(tmp_path, *losses, ("validation", 100, VALIDATION), ("rollout", 100, {"max_reward": 0.5}))
    assert three.shape[1] == pytest.approx(3 * one.shape[1], abs=3)


def test_curves_of_nothing_are_drawn_too(tmp_path: Path) -> None:
    assert drawn(tmp_path).size > 0


def test_summary_names_last_figures_and_the_best_policy(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.record("validation", 10, VALIDATION)
    assert run_summary(tmp_path, "px") == [
        "rmse     of sampled actions at step 10: 12.35 px on held-out episodes, 6 px on training episodes",
        f"policy   {tmp_path / 'policy.pt'}",
    ]
    log.record("rollout", 20, {"max_reward": 0.9, "success_rate": 0.5})
    (tmp_path / "checkpoints").mkdir()
    for name in ("best_step0000010_reward0.950.pt", "best_step0000020_reward0.900.pt"):
        (tmp_path / "checkpoints" / name).touch()
    assert run_summary(tmp_path)[1:] == [
        "rollout  at step 20: mean max reward 0.900, success 0.500",
        f"best     {tmp_path / 'checkpoints' / 'best_step0000010_reward0.950.pt'} (by rollouts)",
        f"policy   {tmp_path / 'policy.pt'} (the last averaged weights, not the best)",
    ]


def test_progress_tells_the_last_rollout(tmp_path: Path) -> None:
    out = io.StringIO()
    notes = iter(["", "at step 2: mean max reward 0.500"])
    with ProgressBar("train", 2, console=Console(file=out, width=200), every=0) as bar:
        hook, loop = ProgressHook(bar, lambda: next(notes)), FakeLoop()
        loop.last = type("Step", (), {"loss": 0.25})
        for loop.grad_step in (1, 2):
            hook.after_step(loop)  # type: ignore[arg-type]
    first, second = out.getvalue().splitlines()
    assert first.endswith("loss 0.2500")
    assert second.endswith("loss 0.2500, rollout at step 2: mean max reward 0.500")


def test_warm_up_beyond_the_run_is_warned_of_with_a_number_that_fits(tmp_path: Path, make_config, caplog) -> None:
    caplog.set_level(logging.WARNING)
    config = make_config(tmp_path / "run", num_grad_steps=20, val_every=0)
    run = train({**config, "optim": {"lr": 1e-3, "warmup_steps": 20}})
    assert "set optim.warmup_steps=2, a tenth of the run" in caplog.text
    assert json.loads((run.out / "metrics.jsonl").read_text().splitlines()[-1])["kind"] == "train"
