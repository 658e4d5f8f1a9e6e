"""What a run measured: metrics.jsonl (one record a line), TensorBoard or wandb beside it; see curves for pictures."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from diffusion_policy.errors import ConfigError, StorageError


class Board(Protocol):
    """A live display of scalars."""

    def add(self, name: str, value: float, grad_step: int) -> None:
        """Shows one scalar."""
        ...

    def close(self) -> None:
        """Flushes what is pending."""
        ...


class TensorBoard:
    """Event files for TensorBoard, in `folder`; a resumed run hides what it repeats."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import: only when used

        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)

    def add(self, name: str, value: float, grad_step: int) -> None:
        """Shows one scalar."""
        self._writer.add_scalar(name, value, grad_step)

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()


class WandbBoard:
    """A Weights & Biases run; needs `pip install wandb`."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("logger.wandb=true needs wandb; run: pip install wandb, or drop the setting") from error
        self._run = wandb.init(dir=str(folder), project="diffusion_policy", config=dict(config), resume="allow")

    def add(self, name: str, value: float, grad_step: int) -> None:
        """Shows one scalar."""
        self._run.log({name: value}, step=grad_step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class MetricsLog:
    """Appends records to metrics.jsonl and shows them on boards.

    Args:
        path: the .jsonl file.
        resume_step: records of later steps are dropped first: the resumed run measures them again.
        boards: live displays.
    """

    def __init__(self, path: Path, *, resume_step: int = 0, boards: tuple[Board, ...] = ()) -> None:
        self.path, self.boards = path, boards
        kept = [r for r in read_metrics(path) if r["grad_step"] <= resume_step] if path.exists() else []
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(f"cannot write {path}: {error.strerror}; free some space and resume") from error

    def record(self, kind: str, grad_step: int, values: Mapping[str, float]) -> None:
        """Writes one line {"kind", "grad_step", **values}.

        Raises:
            StorageError: the disk is full.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        self._write({"kind": kind, "grad_step": grad_step, **finite})
        for board in self.boards:
            for name, value in values.items():
                board.add(f"{kind}/{name}", value, grad_step)

    def note(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Writes one line {"kind", "grad_step": 0, **facts} of what does not change, unless it is there already.

        Raises:
            StorageError: the disk is full.
        """
        if not any(record["kind"] == kind for record in read_metrics(self.path)):
            self._write({"kind": kind, "grad_step": 0, **facts})

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record)
        try:
            with self.path.open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}; free some space and resume") from error

    def close(self) -> None:
        """Closes the boards."""
        for board in self.boards:
            board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl; a last line torn by a crash is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def rollout_note(grad_step: int, values: Mapping[str, float], figure: str = "max_reward") -> str:
    """Returns what rollouts gave, e.g. "at step 2000: mean max reward 0.871, success 0.620".

    Args:
        grad_step: of the policy.
        values: all figures.
        figure: the one to show: max_reward or return.
    """
    success = values.get("success_rate")
    return f"at step {grad_step}: mean {figure.replace('_', ' ')} {values[figure]:.3f}" + (
        "" if success is None else f", success {success:.3f}"
    )
