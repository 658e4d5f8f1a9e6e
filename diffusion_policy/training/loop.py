"""The training loop: steps, and hooks between them. It knows no method, no files and no environment."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.agents.objective import Objective
from diffusion_policy.diffusion.ema import EMA
from diffusion_policy.errors import ConfigError, NonFiniteLossError
from diffusion_policy.policies.device import fast_products, has_fast_bf16
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.training.optim import EpochOrder, OptimConfig, lr_factor, make_optimizer
from diffusion_policy.training.ranks import Ranks
from diffusion_policy.training.weighted_order import Shares, WeightedOrder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """How long and on what a run trains.

    Args:
        num_grad_steps: length of the run; None to give it in epochs.
        num_epochs: length of the run, used when `num_grad_steps` is None.
        batch_size: windows a gradient step, of all processes together.
        micro_batch_size: windows computed at once, in each process; a larger batch is computed in pieces whose
            gradients are summed. None for no limit.
        ema_power: power of the EMA's warm-up law (see `EMA`).
        ema_max: largest EMA decay.
        bf16: compute the loss under bfloat16 autocast (weights stay float32); "auto" where the device has
            instructions for it.
    """

    num_grad_steps: int | None
    num_epochs: int | None = None
    batch_size: int = 256
    micro_batch_size: int | None = None
    ema_power: float = 0.75
    ema_max: float = 0.9999
    bf16: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        if self.num_grad_steps is None and self.num_epochs is None:
            raise ConfigError("training: expected num_grad_steps or num_epochs, got neither")
        for name in ("num_grad_steps", "num_epochs", "batch_size", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"training.{name} must be a positive whole number, but got {value!r}")


@dataclass
class StepResult:
    """What a gradient step leaves for the hooks: its loss, learning rate and the first part's norm of gradient."""

    loss: float
    lr: float
    grad_norm: float


class Hook(Protocol):
    """Something that happens between gradient steps: logging, validation, rollouts, checkpoints."""

    def after_step(self, loop: "TrainingLoop") -> None:
        """Called after each gradient step; `loop.grad_step` steps are done."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns what the hook must remember across a resume, plain values only."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` returned."""
        ...

    def after_save(self) -> None:
        """Called when a state that holds this hook's `state_dict` is on the disk."""
        ...


class Batches(Protocol):
    """What a loop trains on: windows of demonstrations, transitions, or rows of a table."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, ids: np.ndarray) -> Any:
        """Returns those with numbers `ids` (B,), as the objective takes them."""
        ...

    def describe(self, ids: np.ndarray) -> str:
        """Returns where they come from, in one line for an error message."""
        ...


@runtime_checkable
class Composed(Protocol):
    """Batches that are more than their rows, e.g. mixtures: a piece of one is not the batch of fewer numbers."""

    def part(self, ids: np.ndarray, rows: slice) -> Any:
        """Returns some rows of the batch with numbers `ids` (B,)."""
        ...


class TrainingLoop:
    """Optimises an objective on windows of demonstrations, on transitions, or on whatever gives batches.

    Args:
        objective: model and loss.
        dataset: the training data.
        config: length, batch, EMA.
        optim: optimiser settings.
        seed: of the data order and of the loss's noise.
        ranks: the processes that train together.
        shares: of several data sets in each batch; None for each row once an epoch.
    """

    def __init__(
        self,
        objective: Objective[Any],
        dataset: Batches,
        config: LoopConfig,
        optim: OptimConfig,
        *,
        seed: int,
        ranks: Ranks | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.ranks.copy_from_first(objective.model)
        self.objective, self.dataset, self.config, self.optim_config = objective, dataset, config, optim
        self.seed = seed
        # a loss that looks at its whole batch is never given the rest of an epoch, which may be a single row
        whole = objective.row_group == 0
        self.order: EpochOrder | WeightedOrder = (
            EpochOrder(len(dataset), config.batch_size, seed, whole=whole)
            if shares is None
            else WeightedOrder(shares, config.batch_size, seed, whole=whole)
        )
        self.num_grad_steps = config.num_grad_steps or (config.num_epochs or 0) * self.order.steps_per_epoch
        self.optimizer = make_optimizer(objective.model, optim)
        self.ema = EMA(objective.averaged, power=config.ema_power, max_decay=config.ema_max)
        objective.use_average(self.ema.model)
        self.device = next(objective.model.parameters()).device
        self.bf16 = has_fast_bf16(self.device) if config.bf16 == "auto" else config.bf16
        # On a CPU this stream begins with the very numbers that the first weights were drawn from, by the same seed:
        # the first noise is made of them. Another stream would change the figures of every run that was published.
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.grad_step = 0
        self.last = StepResult(loss=float("nan"), lr=0.0, grad_norm=0.0)
        self.last_checkpoint: str = "none yet"
        if optim.warmup_steps >= self.num_grad_steps:
            logger.warning(
                "optim.warmup_steps %d reach beyond the run's %d steps: the learning rate never gets to optim.lr; "
                "set optim.warmup_steps=%d, a tenth of the run, or train longer",
                optim.warmup_steps,
                self.num_grad_steps,
                self.num_grad_steps // 10,
            )

    def run(self, hooks: Sequence[Hook], interrupt: Interrupt) -> bool:
        """Trains to the end, or until Ctrl-C; a step is never torn. Returns whether the end was reached.

        Raises:
            NonFiniteLossError: names the step, the windows and the last good checkpoint.
            RankLostError: one of several processes has ended.
        """
        self.ranks.begin(self.seed, self.grad_step)
        stop = self.ranks.size == 1 and interrupt.requested  # several stop together: their votes are part of a step
        while self.grad_step < self.num_grad_steps and not stop:
            stop = self.step(stop=interrupt.requested)
            for hook in hooks:
                hook.after_step(self)
            stop = stop or (self.ranks.size == 1 and interrupt.requested)
        return self.grad_step >= self.num_grad_steps

    def step(self, *, stop: bool = False) -> bool:
        """One gradient step. Returns whether this process, or one of the others, wants it to be the last: `stop`."""
        lr = self.optim_config.lr * lr_factor(self.grad_step, self.num_grad_steps, self.optim_config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.objective.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        ids = self.order.batch(self.grad_step)
        with fast_products(self.device):
            own = self._backward(ids)
        parameters = list(self.objective.model.parameters())
        loss, votes = self.ranks.sum_gradients(parameters, (own, float(stop)))
        if not np.isfinite(loss):
            self._refuse("loss", ids)
        limit = float("inf") if self.optim_config.grad_clip is None else self.optim_config.grad_clip
        norms = [float(nn.utils.clip_grad_norm_(part.parameters(), limit)) for part in self.objective.parts]
        if not np.isfinite(norms).all():
            self._refuse("gradient", ids)
        self.optimizer.step()
        self.grad_step += 1
        self.ema.step(self.objective.averaged)
        self.objective.after_step()
        self.last = StepResult(loss=loss, lr=lr, grad_norm=norms[0])
        return votes > 0

    def _backward(self, ids: np.ndarray) -> float:
        """Computes the gradients of this process's share of a batch, piece by piece; returns its part of the loss."""
        group = self.objective.row_group or len(ids)
        pieces = list(self.ranks.pieces(len(ids), self.config.micro_batch_size, group))
        batch = self._part(ids, pieces[0] if pieces else slice(1))
        # for the whole batch: the same numbers whoever computes which part of it
        draws = self.objective.draw(batch, len(ids), self.generator)
        own = 0.0
        for place, rows in enumerate(pieces):
            if place:
                batch = self._part(ids, rows)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                losses = self.objective.loss(batch, {name: drawn[rows] for name, drawn in draws.items()})  # (rows,)
            loss = losses.float().mean() * (len(losses) / len(ids))
            value = loss.item()
            if not np.isfinite(value):
                if self.ranks.size == 1:
                    self._refuse("loss", ids[rows], losses)
                return value  # it makes the sum not finite: all refuse together
            loss.backward()  # type: ignore[no-untyped-call]
            own += value
        return own

    def _part(self, ids: np.ndarray, rows: slice) -> Any:
        dataset = self.dataset
        return dataset.part(ids, rows) if isinstance(dataset, Composed) else dataset.batch(ids[rows])

    def _refuse(self, what: str, ids: np.ndarray, losses: Tensor | None = None) -> None:
        bad = ids[:0] if losses is None else ids[(~torch.isfinite(losses)).cpu().numpy()]
        shown = self.dataset.describe((bad if len(bad) else ids)[:5])
        where = f"in {len(bad)} of {len(ids)} windows: {shown}" if len(bad) else f"on windows {shown} and others"
        raise NonFiniteLossError(f"{what} is not finite at gradient step {self.grad_step}, {where}; {self._remedy()}")

    def _remedy(self) -> str:
        return (
            f"last good checkpoint: {self.last_checkpoint}; lower optim.lr, set optim.grad_clip, or look at the data "
            f"with dp-inspect"
        )

    def check_weights(self) -> None:
        """Raises NonFiniteLossError when a weight is NaN or infinite: such a state must never be saved."""
        tensors = [*self.objective.model.parameters(), *self.ema.model.parameters()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise NonFiniteLossError(f"weights are not finite after gradient step {self.grad_step}; {self._remedy()}")

    def state_dict(self) -> dict[str, Any]:
        """Returns everything an exact resume needs: weights, EMA, optimiser, random state, position."""
        return {
            "grad_step": self.grad_step,
            "model": self.objective.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),  # dropout and the like draw from it
            "cuda_rng": [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.grad_step = state["grad_step"]
        self.objective.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"][0], self.device)
