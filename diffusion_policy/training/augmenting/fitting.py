"""Augmenters on the training loop: the same optimiser, average, exact resume and curves as policies have.

Letters: N rows, B rows of a batch, D columns.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.agents.objective import Objective
from diffusion_policy.augment.augmenter import LearnedModel
from diffusion_policy.augment.model_file import load_model, save_model
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.errors import CheckpointError, DataError
from diffusion_policy.training.checkpoint_hook import CheckpointHook, state_path
from diffusion_policy.training.data_identity import DataIdentity
from diffusion_policy.training.execution import carry_out, restored
from diffusion_policy.training.hooks import HookConfig, LogHook
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.training.loop import Hook, LoopConfig, TrainingLoop
from diffusion_policy.training.optim import OptimConfig

logger = logging.getLogger(__name__)

MODEL_FILE = "augmenter.pt"


@dataclass(frozen=True)
class FitConfig:
    """How a model of transitions is trained.

    Args:
        loop: length, batch, average, precision.
        optim: optimiser.
        hooks: when to log and to save; the others have no part in it.
        seed: of first weights, order and noise.
        device: where.
    """

    loop: LoopConfig
    optim: OptimConfig
    hooks: HookConfig
    seed: int
    device: torch.device

    def shorter(self, steps: int) -> "FitConfig":
        """Returns the same with another length."""
        return replace(self, loop=replace(self.loop, num_grad_steps=steps))


class TableRows:
    """Whitened rows as what a loop trains on.

    Args:
        rows: (N, D).
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """N."""
        return len(self._rows)

    def batch(self, ids: np.ndarray) -> Tensor:
        """Returns rows (B, D)."""
        return self._rows.index_select(0, torch.as_tensor(ids, device=self._rows.device))

    def describe(self, ids: np.ndarray) -> str:
        """Returns their numbers."""
        return "transitions " + ", ".join(str(int(i)) for i in ids)


class ModelObjective(Objective[nn.Module]):
    """A model's own loss on whitened rows; its network is averaged.

    Args:
        model: its columns are measured.
    """

    def __init__(self, model: LearnedModel) -> None:
        super().__init__(model.network)
        self.transitions_model = model

    def draw(self, batch: Tensor, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Returns what the model draws for a whole batch."""
        return self.transitions_model.draw(rows, generator)

    def loss(self, batch: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Returns the losses (B,) of rows (B, D)."""
        return self.transitions_model.losses(batch, draws)

    def deployed(self, average: nn.Module) -> LearnedModel:
        """Returns the model that holds the averaged network."""
        return self.transitions_model.holding(average)


def check_enough(real: Transitions, config: FitConfig) -> None:
    """Raises DataError where there are fewer rows than a batch has."""
    if len(real) < config.loop.batch_size:
        rows = "transitions" if real.columns.outcome else "windows"
        raise DataError(
            f"expected at least one batch of {config.loop.batch_size} {rows}, but got {len(real)}; collect more, or "
            f"lower training.batch_size"
        )


def model_loop(model: LearnedModel, real: Transitions, config: FitConfig) -> TrainingLoop:
    """Returns the loop that trains a model whose columns are measured.

    Args:
        model: it is moved to the device.
        real: the rows.
        config: how.

    Raises:
        DataError: there are fewer rows than a batch has.
    """
    check_enough(real, config)
    model.to(config.device).train()
    data = TableRows(model.whitening.whiten(real.rows).to(config.device))
    return TrainingLoop(ModelObjective(model), data, config.loop, config.optim, seed=config.seed)


class InMemory:
    """A trainer that leaves no files: for comparisons, and for notebooks.

    Args:
        config: how.
        hooks: act between gradient steps.
    """

    def __init__(self, config: FitConfig, hooks: Sequence[Hook] = ()) -> None:
        self._config, self._hooks = config, hooks

    def __call__(self, model: LearnedModel, real: Transitions) -> None:
        """Trains; the model then holds the averaged network."""
        loop = model_loop(model, real, self._config)
        with Interrupt() as interrupt:
            if not loop.run(self._hooks, interrupt):
                raise KeyboardInterrupt
        _settle(model, loop)


class InFolder:
    """A trainer that leaves what a run of dp-train leaves, and goes on where it was killed.

    Args:
        config: how.
        out: the run's folder, which exists; it then holds augmenter.pt, metrics.jsonl, curves.png and checkpoints/.
        digest: of the data.
        dataset: how they are called, for messages.
        info: provenance for augmenter.pt.

    Attributes:
        finished: whether the last training came to its end; False when it was interrupted.
    """

    def __init__(self, config: FitConfig, out: Path, digest: str, dataset: str, info: Mapping[str, Any]) -> None:
        self._config, self._out, self._info = config, out, info
        self._data = DataIdentity(dataset, digest)
        self.finished = False

    def __call__(self, model: LearnedModel, real: Transitions) -> None:
        """Trains; the model then holds the averaged network."""
        loop = model_loop(model, real, self._config)
        self._refuse_another_encoding(model)
        saved = restored(loop, self._out, self._data, "start anew with another run=")
        for torn in [*self._out.glob(f".{MODEL_FILE}.*"), *state_path(self._out).parent.glob(".*.pt.*")]:
            torn.unlink(missing_ok=True)  # a process killed while it wrote leaves its temporary file behind
        self.finished = carry_out(
            loop,
            self._out,
            lambda hooks: self._checkpoint(model, hooks),
            lambda log: [LogHook(log, self._config.hooks.log_every)],
            saved=saved,
            title="fit",
        )
        _settle(model, loop)

    def _refuse_another_encoding(self, model: LearnedModel) -> None:
        """Raises CheckpointError where the weights to go on from were learned from other numbers of the same rows."""
        file = self._out / MODEL_FILE
        if not (state_path(self._out).is_file() and file.is_file()):
            return
        begun, _ = load_model(file)
        if not model.encodes_like(begun):
            raise CheckpointError(
                f"{self._out} was begun by an earlier version, whose network sees terminals otherwise; finish it with "
                f"that version, or start anew with another run="
            )

    def _checkpoint(self, model: LearnedModel, hooks: Sequence[Hook]) -> CheckpointHook:
        def deploy(loop: TrainingLoop) -> None:
            length = {"grad_steps": loop.grad_step, "of": loop.num_grad_steps}
            training = {**length, "seeds": [self._config.seed], "bf16": loop.bf16}
            info = {**self._info, "training": training}
            save_model(model.holding(loop.ema.model), self._out / MODEL_FILE, info)

        return CheckpointHook(self._out, self._config.hooks.checkpoint_every, self._data, hooks, deploy)


def _settle(model: LearnedModel, loop: TrainingLoop) -> None:
    model.network.load_state_dict(loop.ema.model.state_dict())
    model.eval().requires_grad_(False)
