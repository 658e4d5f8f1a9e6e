"""What is measured while an agent learns: episodes, evaluations at fixed environment steps, the state of training."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from diffusion_policy.errors import StorageError
from diffusion_policy.rollout.evaluate import EvalResult
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.training.interrupt import Interrupt


class Records:
    """Appends lines {"kind", "env_step", ...} to a .jsonl file, and keeps them.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[dict[str, Any]] = []

    def add(self, kind: str, env_step: int, values: Mapping[str, Any]) -> None:
        """Writes a line.

        Raises:
            StorageError: it could not be written.
        """
        record = {"kind": kind, "env_step": env_step, **_finite(values)}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}; free some space") from error
        self._kept.append(record)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Returns the records of one kind, without it."""
        alike = (each for each in self._kept if each["kind"] == kind)
        return [{name: value for name, value in each.items() if name != "kind"} for each in alike]


def _finite(value: Any) -> Any:
    """Returns plain values with None for NaN and infinity, which JSON has not."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class StoppedInRefit(KeyboardInterrupt):
    """Somebody wants to stop, and nothing is torn: the agent waits for new synthetic transitions."""


class Measures(BaseCallback):
    """Evaluates an agent before its first step, every so many environment steps, and when it has learned.

    Evaluations have environments and seeds of their own; the agent learns the same with and without them.

    Args:
        evaluate: the agent -> what it achieves.
        every: environment steps between two evaluations; 0 for the first and the last one only.
        records: where to.
        bar: counts environment steps.
        interrupt: ends the training between two steps.
    """

    def __init__(
        self,
        evaluate: Callable[[BaseAlgorithm], EvalResult],
        every: int,
        records: Records,
        bar: ProgressBar,
        interrupt: Interrupt,
    ) -> None:
        super().__init__()
        self._evaluate, self._every, self._records, self._bar = evaluate, every, records, bar
        self._interrupt = interrupt
        self._passed = 0
        self.note = ""

    def progress(self, what: str, done: int, of: int) -> None:
        """Shows how far a refit is; see `refit`.

        Raises:
            StoppedInRefit: somebody wants to stop.
        """
        if self._interrupt.requested:
            raise StoppedInRefit
        self._bar.update(self.num_timesteps, f"{self.note} refit: {what} {done}/{of}")

    def _on_training_start(self) -> None:
        self._measure()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:  # of the Monitor around each environment
                ended = {"return": float(info["episode"]["r"]), "length": int(info["episode"]["l"])}
                self._records.add("episode", self.num_timesteps, ended)
        self._bar.update(self.num_timesteps, self.note)
        return not self._interrupt.requested

    def _on_rollout_end(self) -> None:
        passed = self.num_timesteps // self._every if self._every else 0
        if passed > self._passed and self.num_timesteps < self.locals["total_timesteps"]:
            self._passed = passed
            self._measure()

    def _on_training_end(self) -> None:
        if not self._interrupt.requested:
            self._measure()

    def _measure(self) -> None:
        result = self._evaluate(self.model)
        found = {
            "return": result.episode_return.to_dict(),
            "returns": [each.episode_return for each in result.per_episode],
            "lengths": [each.length for each in result.per_episode],
        }
        if result.success_rate is not None:
            found["success_rate"] = result.success_rate.to_dict()
        self._records.add("evaluation", self.num_timesteps, found)
        losses = {
            name.partition("/")[2]: float(value)
            for name, value in self.logger.name_to_value.items()
            if name.startswith("train/")
        }
        if losses:
            self._records.add("train", self.num_timesteps, losses)
        self.note = f"return {result.episode_return.mean:.1f}"
        self._bar.update(self.num_timesteps, self.note)
