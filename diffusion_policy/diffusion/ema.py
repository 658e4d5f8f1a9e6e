"""An exponential moving average of a model's weights: what is evaluated and deployed."""

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError

M = TypeVar("M", bound=nn.Module)


def power_decay(
    num_updates: int,
    *,
    power: float = 0.75,
    inv_gamma: float = 1.0,
    min_decay: float = 0.0,
    max_decay: float = 0.9999,
    update_after_step: int = 0,
) -> float:
    """Returns the share of the average that its `num_updates`-th update keeps.

    1 - (1 + n / inv_gamma)^-power with n = num_updates - update_after_step - 1; 0 up to n = 0, so the average starts
    as a copy. Chi et al. 2023 use power 0.75: 0.999 after 10 thousand updates. Counted as in diffusers' EMAModel with
    warm-up; the authors' code counts from 0, i.e. is one update behind.
    """
    n = num_updates - update_after_step - 1
    if n <= 0:
        return 0.0
    return max(min_decay, min(max_decay, 1 - math.pow(1 + n / inv_gamma, -power)))


class EMA(Generic[M]):
    """Keeps an averaged copy of a model.

    Trainable parameters are averaged; frozen ones and buffers (a normaliser's scales, counters) are copied, since
    an average of them means nothing.

    Args:
        model: what is trained; a copy is made at once.
        power: of the warm-up, see `power_decay`.
        inv_gamma: of the warm-up.
        min_decay: lower bound once the average has begun.
        max_decay: upper bound.
        update_after_step: updates during which the average is just a copy.

    Attributes:
        model: the average, in evaluation mode, without gradients.
        num_updates: calls of `step` so far.

    Raises:
        ConfigError: the model has running statistics (BatchNorm): those and averaged weights do not belong together,
            which ruins the average (Chi et al. 2023, section 3.2).
    """

    def __init__(
        self,
        model: M,
        *,
        power: float = 0.75,
        inv_gamma: float = 1.0,
        min_decay: float = 0.0,
        max_decay: float = 0.9999,
        update_after_step: int = 0,
    ) -> None:
        if not 0 <= min_decay <= max_decay <= 1:
            raise ConfigError(f"expected 0 <= min_decay <= max_decay <= 1, but got {min_decay!r} and {max_decay!r}")
        running = [name for name, m in model.named_modules() if getattr(m, "running_mean", None) is not None]
        if running:
            raise ConfigError(
                f"EMA does not average running statistics, but {', '.join(running[:3])} of {len(running)} such layers "
                f"keep them (BatchNorm); use GroupNorm"
            )
        self._decay = partial(
            power_decay,
            power=power,
            inv_gamma=inv_gamma,
            min_decay=min_decay,
            max_decay=max_decay,
            update_after_step=update_after_step,
        )
        self.num_updates = 0
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    def decay_at(self, num_updates: int) -> float:
        """Returns the share of the average that its `num_updates`-th update (from 1) keeps."""
        return self._decay(num_updates)

    @torch.no_grad()
    def step(self, model: M) -> None:
        """Moves the average towards `model`; call it after every optimiser step."""
        self.num_updates += 1
        averaged, trained, kept, copied = _pairs(self.model, model)
        if averaged:
            torch._foreach_lerp_(averaged, trained, 1 - self.decay_at(self.num_updates))
        if kept:
            torch._foreach_copy_(kept, copied)

    @torch.no_grad()
    def copy_to(self, model: M) -> None:
        """Overwrites the parameters and buffers of `model` with the average's."""
        target = [*model.parameters(), *model.buffers()]
        source: list[Tensor] = [*self.model.parameters(), *self.model.buffers()]
        torch._foreach_copy_(target, source)

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to continue exactly: {"num_updates", "model"}."""
        return {"num_updates": self.num_updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; the settings are the constructor's."""
        self.model.load_state_dict(state["model"])
        self.num_updates = int(state["num_updates"])


def _pairs(average: nn.Module, model: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Returns (averaged, trained, kept, copied): two parallel lists to average, two to copy."""
    averaged: list[Tensor] = []
    trained: list[Tensor] = []
    kept: list[Tensor] = list(average.buffers())
    copied: list[Tensor] = list(model.buffers())
    for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
        into, source = (averaged, trained) if theirs.requires_grad else (kept, copied)
        into.append(mine)
        source.append(theirs)
    return averaged, trained, kept, copied
