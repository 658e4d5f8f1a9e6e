"""Evaluations between gradient steps, and the best checkpoints by them."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion_policy.policies.policy import Policy
from diffusion_policy.rollout.evaluate import EvalResult
from diffusion_policy.training.hooks import BestBy, averaged_policy, is_due
from diffusion_policy.training.loop import TrainingLoop
from diffusion_policy.training.metrics import MetricsLog, rollout_note


class RolloutHook:
    """Evaluates the EMA policy in the environment and keeps the best checkpoints.

    Args:
        log: where to record.
        evaluate: policy -> result; made by the run, so that the hook knows no environment.
        folder: where the best policies stand.
        every: interval in gradient steps.
        keep: how many to keep.
        best_by: by which figure.
    """

    def __init__(
        self,
        log: MetricsLog,
        evaluate: Callable[[Policy], EvalResult],
        folder: Path,
        every: int,
        keep: int,
        best_by: BestBy = "max_reward",
    ) -> None:
        self._log, self._evaluate, self._folder, self._every, self._keep = log, evaluate, folder, every, keep
        self._best_by: BestBy = best_by
        self._best: list[tuple[float, str]] = []  # (reward, file name), best first
        self._evicted: list[str] = []  # files that a saved state may still list
        self.note = ""  # the last rollout, in a few words

    def after_step(self, loop: TrainingLoop) -> None:
        """Rolls out when due."""
        if not is_due(loop, self._every):
            return
        policy = averaged_policy(loop)
        begun = time.perf_counter()
        result = self._evaluate(policy)
        values = {"max_reward": result.max_reward.mean, "return": result.episode_return.mean}
        if result.success_rate is not None:
            values["success_rate"] = result.success_rate.mean
        self.note = rollout_note(loop.grad_step, values, self._best_by)
        self._log.record("rollout", loop.grad_step, {**values, "seconds": time.perf_counter() - begun})
        self._keep_if_best(loop, policy, values[self._best_by])

    def _keep_if_best(self, loop: TrainingLoop, policy: Policy, reward: float) -> None:
        grad_step = loop.grad_step
        name = f"best_step{grad_step:07d}_reward{reward:.3f}.pt"
        ranked = sorted([*self._best, (reward, name)], key=lambda entry: -entry[0])[: self._keep]
        if (reward, name) in ranked:
            loop.check_weights()
            training = {**policy.info.training, "grad_steps": grad_step}
            policy.save(self._folder / name, replace(policy.info, training=training, eval={self._best_by: reward}))
        self._evicted += [old for _, old in set(self._best) - set(ranked)]
        self._best = ranked

    def after_save(self) -> None:
        """Removes what fell out of the list: no saved state lists it any more."""
        for name in self._evicted:
            (self._folder / name).unlink(missing_ok=True)
        self._evicted = []

    def state_dict(self) -> dict[str, Any]:
        """Returns the list of best checkpoints."""
        return {"best": [list(entry) for entry in self._best]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the list back; files of later steps, left by a killed run, are removed."""
        listed = [(float(reward), str(name)) for reward, name in state["best"]]
        self._best = [entry for entry in listed if (self._folder / entry[1]).is_file()]
        known = {name for _, name in self._best}
        for file in self._folder.glob("best_step*.pt"):
            if file.name not in known:
                file.unlink()
