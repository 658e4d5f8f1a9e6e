"""What happens between gradient steps: log and validate here, `rollout_hook`, `checkpoint_hook`; in this order."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch

from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.joining import JoinedWindows
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.policy import Policy
from diffusion_policy.training.loop import TrainingLoop
from diffusion_policy.training.metrics import MetricsLog

BestBy = Literal["max_reward", "return"]


@dataclass(frozen=True)
class HookConfig:
    """When the hooks act, in gradient steps; 0 switches one off. Each also acts at the last step.

    Args:
        log_every: training loss.
        val_every: validation on held-out episodes.
        val_windows: how many windows are sampled for it.
        rollout_every: evaluation in the environment.
        rollout_episodes: episodes of one.
        rollout_seed: first seed; below 50000 to tune, from 50000 to choose checkpoints, 100000 and up to report.
        rollout_num_envs: environments side by side.
        rollout_workers: processes that run them; 0 for none beside the training.
        keep_best: how many checkpoints to keep by what rollouts measured.
        best_by: which of their figures.
        checkpoint_every: resumable state and policy.pt.
    """

    log_every: int = 100
    val_every: int = 1000
    val_windows: int = 256
    rollout_every: int = 0
    rollout_episodes: int = 32
    rollout_seed: int = 50000
    rollout_num_envs: int = 16
    rollout_workers: int = 0
    keep_best: int = 3
    best_by: BestBy = "max_reward"
    checkpoint_every: int = 1000

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == "best_by":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"training.{name} must be a whole number, 0 or more, but got {value!r}")
        needs = {"val_every": ("val_windows",), "rollout_every": ("rollout_episodes", "rollout_num_envs", "keep_best")}
        for interval, names in needs.items():
            for name in names:
                if getattr(self, interval) > 0 and getattr(self, name) < 1:
                    raise ConfigError(f"training.{name} must be at least 1 with {interval} > 0, but got 0")


def is_due(loop: TrainingLoop, every: int) -> bool:
    """Whether a hook with this interval acts now: on multiples of it and at the last step; never when 0."""
    return every > 0 and (loop.grad_step % every == 0 or loop.grad_step == loop.num_grad_steps)


def averaged_policy(loop: TrainingLoop) -> Policy:
    """Returns the policy that is deployed of the EMA weights."""
    return cast("Policy", loop.objective.deployed(loop.ema.model))


class StatelessHook:
    """A hook that remembers nothing across a resume."""

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes nothing."""

    def after_save(self) -> None:
        """Has nothing to do."""


class LogHook:
    """Records the mean loss since the last record, the learning rate, the gradient norm and the speed."""

    def __init__(self, log: MetricsLog, every: int) -> None:
        self._log, self._every = log, every
        self._sum, self._count = 0.0, 0
        self._since = time.perf_counter()

    def after_step(self, loop: TrainingLoop) -> None:
        """Adds a step to the mean; records it when due."""
        self._sum += loop.last.loss
        self._count += 1
        if not is_due(loop, self._every):
            return
        now = time.perf_counter()
        values = {
            "loss": self._sum / self._count,
            "lr": loop.last.lr,
            "grad_norm": loop.last.grad_norm,
            "samples_per_s": self._count * loop.order.batch_size / max(1e-9, now - self._since),
            **{name: float(value) for name, value in loop.objective.figures.items()},
        }
        self._log.record("train", loop.grad_step, values)
        self._sum, self._count, self._since = 0.0, 0, now

    def state_dict(self) -> dict[str, Any]:
        """Returns the unfinished mean."""
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with an unfinished mean."""
        self._sum, self._count = state["sum"], state["count"]

    def after_save(self) -> None:
        """Has nothing to do."""


class ValidationHook(StatelessHook):
    """Measures the EMA policy on held-out episodes: the loss, and the error of actions that it samples.

    The denoising loss says little about behaviour; the error of sampled actions, in env units, over the steps
    that would be executed, is what a person can judge. Windows, noise and timesteps are the same each time. Nothing
    is selected among candidates here: their choice is no imitation, and 64 of a U-Net's took minutes.

    Args:
        log: where to record.
        held_out: windows of validation episodes, or None when there are none.
        train: the training windows, for comparison.
        every: interval in gradient steps.
        windows: how many windows of each; of several data sets all together.
        shares: of several data sets in the batches, by name: their figures are recorded too, as "loss/NAME", and what
            is recorded of all is their mean by these.
    """

    def __init__(
        self,
        log: MetricsLog,
        held_out: WindowDataset | JoinedWindows | None,
        train: WindowDataset | JoinedWindows,
        every: int,
        windows: int,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self._log, self._every, self._windows, self._shares = log, every, windows, shares or {}
        self._sets = {"train_": train} if held_out is None else {"": held_out, "train_": train}

    def after_step(self, loop: TrainingLoop) -> None:
        """Validates when due."""
        if not is_due(loop, self._every):
            return
        policy = averaged_policy(loop).with_selector(None)
        values: dict[str, float] = {}
        for prefix, dataset in self._sets.items():
            values |= {prefix + name: value for name, value in self._measure_all(policy, dataset).items()}
        self._log.record("validation", loop.grad_step, values)

    def _measure_all(self, policy: Policy, dataset: WindowDataset | JoinedWindows) -> dict[str, float]:
        if isinstance(dataset, WindowDataset):
            return self._measure(policy, dataset, self._windows)
        windows = max(1, self._windows // len(dataset.parts))
        each = {name: self._measure(policy, part, windows) for name, part in dataset.parts.items()}
        weight = {name: self._shares[name] / sum(self._shares[other] for other in each) for name in each}
        return {
            "loss": sum(weight[name] * found["loss"] for name, found in each.items()),
            "action_rmse": sum(weight[name] * found["action_rmse"] ** 2 for name, found in each.items()) ** 0.5,
            **{f"{figure}/{name}": value for name, found in each.items() for figure, value in found.items()},
        }

    @torch.no_grad()
    def _measure(self, policy: Policy, dataset: WindowDataset, windows: int) -> dict[str, float]:
        ids = np.unique(np.linspace(0, len(dataset) - 1, windows).astype(np.int64))
        batch = dataset.batch(ids)
        generator = torch.Generator(policy.device).manual_seed(0)
        loss = policy.losses(batch.obs, batch.action, policy.draw(len(ids), generator)).mean()
        noise = torch.randn(len(ids), *policy.noise_shape, generator=generator, device=policy.device)
        chunk = policy.predict(batch.obs, noise)
        start, length = policy.horizons.start, policy.horizons.action_horizon
        error = chunk.actions.flatten(2) - batch.action[:, start : start + length]
        return {"loss": float(loss), "action_rmse": float(error.square().mean().sqrt())}
