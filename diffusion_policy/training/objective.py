"""What the training loop optimises. Imitation is the first objective; offline RL and others are siblings.

Letters: B batch, Tp pred_horizon, Da action size.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion_policy.data.dataset import Batch
from diffusion_policy.policies.policy import Draws, Policy


class Objective(Protocol):
    """A model and the loss that trains it."""

    @property
    def model(self) -> nn.Module:
        """What is optimised, averaged (EMA) and saved."""
        ...

    @property
    def row_group(self) -> int:
        """A batch may be cut into pieces at multiples of this many rows; 1: anywhere."""
        ...

    def draw(self, batch: Batch, rows: int, generator: torch.Generator) -> Draws:
        """Returns the random numbers of a whole batch, of which `batch` may be a piece.

        Args:
            batch: tells shapes and device.
            rows: of the whole batch, B.
            generator: all randomness comes from it.
        """
        ...

    def loss(self, batch: Batch, draws: Draws) -> Tensor:
        """Returns the loss of each sample (B,).

        Args:
            batch: windows.
            draws: the rows of `draw` that belong to them.
        """
        ...


class ImitationObjective:
    """Behaviour cloning: the policy's own loss on demonstrated actions.

    Args:
        policy: the policy to train.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def model(self) -> Policy:
        """The policy."""
        return self.policy

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
