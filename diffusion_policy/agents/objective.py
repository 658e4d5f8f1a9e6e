"""What the training loop optimises: networks, a loss a window, and what is done after each step.

Imitation is the simplest; agents of reinforcement learning add critics; augmenters learn transitions.

Letters: B batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from diffusion_policy.data.dataset import Batch
from diffusion_policy.policies.policy import Draws, Policy

M = TypeVar("M", bound=nn.Module)


class Objective(Generic[M]):
    """What is trained, and its loss.

    Args:
        averaged: the network of which an average over training is kept, and deployed: a policy, or another model.
    """

    def __init__(self, averaged: M) -> None:
        self.averaged = averaged
        self.average = averaged

    @property
    def model(self) -> nn.Module:
        """Everything that a resumed run must find again, what is averaged included."""
        return self.averaged

    @property
    def parts(self) -> Sequence[nn.Module]:
        """The modules whose gradients are clipped, each by its own norm; what is averaged is the first."""
        return (self.averaged,)

    @property
    def row_group(self) -> int:
        """A batch may be cut into pieces at multiples of this many rows; 1: anywhere, 0: nowhere."""
        return 1

    def use_average(self, average: M) -> None:
        """Told once which network holds the averaged weights, for losses that look at it."""
        self.average = average

    def draw(self, batch: Any, rows: int, generator: torch.Generator) -> Draws:
        """Returns the random numbers of a whole batch, of which `batch` may be a piece.

        Args:
            batch: tells shapes and device.
            rows: of the whole batch, B.
            generator: all randomness comes from it.
        """
        raise NotImplementedError

    def loss(self, batch: Any, draws: Draws) -> Tensor:
        """Returns the loss of each sample (B,), of all parts together.

        Args:
            batch: of the data set.
            draws: the rows of `draw` that belong to them.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each gradient step and the average's: targets move here."""

    @property
    def figures(self) -> Mapping[str, Tensor]:
        """Scalars of the last loss that people watch, by name."""
        return {}

    def deployed(self, average: M) -> nn.Module:
        """Returns what is saved and evaluated, made of the average."""
        return average


class PolicyObjective(Objective[Policy]):
    """A policy, what is trained with it, and the loss of both.

    Args:
        policy: what is averaged over training, and deployed.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.policy = policy

    @property
    def trains_policy(self) -> bool:
        """Whether the policy learns; else it must be given, and only what stands beside it does."""
        return True

    def load_pretrained(self) -> None:
        """Reads the published weights that settings of encoders name, into all networks that have some."""
        self.policy.encoder.load_pretrained()

    def deployed(self, average: Policy) -> Policy:
        """Returns what is saved and evaluated, made of the averaged policy."""
        return average


class Imitation(PolicyObjective):
    """Behaviour cloning: the policy's own loss on demonstrated actions."""

    @property
    def row_group(self) -> int:
        """See `Policy`."""
        return self.policy.row_group

    def draw(self, batch: Batch, rows: int, generator: torch.Generator) -> Draws:
        """Returns what the policy draws for a whole batch."""
        return self.policy.draw(rows, generator)

    def loss(self, batch: Batch, draws: Draws) -> Tensor:
        """Returns the policy's losses (B,)."""
        return self.policy.losses(batch.obs, batch.action, draws)
