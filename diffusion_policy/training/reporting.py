"""What a run tells a person: a note beside its progress bar, and figures when it is over."""

from collections.abc import Callable
from pathlib import Path

import yaml

from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.settings import section
from diffusion_policy.training.hooks import StatelessHook
from diffusion_policy.training.loop import TrainingLoop
from diffusion_policy.training.metrics import read_metrics, rollout_note


class ProgressHook(StatelessHook):
    """Moves the progress bar.

    Args:
        bar: the bar.
        note: returns what else to show beside the loss, e.g. the last rollout; may be empty.
    """

    def __init__(self, bar: ProgressBar, note: Callable[[], str]) -> None:
        self._bar, self._note = bar, note

    def after_step(self, loop: TrainingLoop) -> None:
        """Shows step, loss and note."""
        note = self._note()
        self._bar.update(loop.grad_step, f"loss {loop.last.loss:.4f}" + (f", rollout {note}" if note else ""))


def run_summary(out: Path, unit: str = "") -> list[str]:
    """Returns the figures of a run, one line each: the last validation, the last rollout, the best and the last policy.

    Args:
        out: the run's folder.
        unit: of the actions.
    """
    records = read_metrics(out / "metrics.jsonl")
    lines = []
    validations = [r for r in records if r["kind"] == "validation" and r.get("train_action_rmse") is not None]
    if validations:
        last, behind = validations[-1], f" {unit}" if unit else ""
        each = {"held-out": last.get("action_rmse"), "training": last["train_action_rmse"]}
        shown = ", ".join(f"{v:.4g}{behind} on {name} episodes" for name, v in each.items() if v is not None)
        lines.append(f"rmse     of sampled actions at step {last['grad_step']}: {shown}")
    rollouts = [r for r in records if r["kind"] == "rollout" and r.get("max_reward") is not None]
    if rollouts:
        lines.append(f"rollout  {rollout_note(rollouts[-1]['grad_step'], rollouts[-1], _judged_by(out))}")
    best = _best_checkpoints(out / "checkpoints")
    lines += [f"best     {file} (by rollouts)" for file in best[:1]]
    return [*lines, f"policy   {out / 'policy.pt'}" + (" (the last averaged weights, not the best)" if best else "")]


def _judged_by(out: Path) -> str:
    """Returns the figure of rollouts by which a run kept its best checkpoints."""
    config = out / "config.yaml"
    settings = yaml.safe_load(config.read_text()) if config.is_file() else {}
    return str(section(settings, "training").get("best_by", "max_reward"))


def _best_checkpoints(folder: Path) -> list[Path]:
    """Returns the policies that rollouts chose, best first; their names tell the reward."""
    return sorted(folder.glob("best_step*.pt"), key=lambda file: -float(file.stem.rpartition("_reward")[2]))
