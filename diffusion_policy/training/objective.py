"""What the training loop optimises. Imitation is the first objective; offline RL and others are siblings.

Letters: B batch, Tp pred_horizon, Da action size.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion_policy.data.dataset import Batch
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy

Draws = dict[str, Tensor]
"""Random numbers of a gradient step, each with the batch as its first axis."""


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


class DenoisingObjective:
    """Behaviour cloning by denoising (Chi et al. 2023, eq. 5).

    Args:
        policy: the policy to train.
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.policy = policy

    @property
    def model(self) -> DiffusionPolicy:
        """The policy."""
        return self.policy

    @property
    def row_group(self) -> int:
        """What the denoiser says; see `Denoiser`."""
        return int(getattr(self.policy.denoiser, "row_group", 1))

    def draw(self, batch: Batch, rows: int, generator: torch.Generator) -> Draws:
        """Returns noise (B, Tp, Da) and timesteps (B,)."""
        action = batch.action
        noise = torch.randn((rows, *action.shape[1:]), generator=generator, device=action.device)
        return {"noise": noise, "t": self.policy.process.sample_timesteps(rows, generator)}

    def loss(self, batch: Batch, draws: Draws) -> Tensor:
        """Returns the denoising loss (B,) at random timesteps."""
        return self.policy.loss(batch.obs, batch.action, noise=draws["noise"], t=draws["t"])
