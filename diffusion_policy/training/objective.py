"""What the training loop optimises. Imitation is the first objective; offline RL and others are siblings.

Letters: B batch.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion_policy.data.dataset import Batch
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy


class Objective(Protocol):
    """A model and the loss that trains it."""

    @property
    def model(self) -> nn.Module:
        """What is optimised, averaged (EMA) and saved."""
        ...

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Returns the loss of each sample (B,); all randomness comes from `generator`."""
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

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Returns the denoising loss (B,) at random timesteps."""
        action = batch.action
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        t = self.policy.process.sample_timesteps(action.shape[0], generator)
        return self.policy.loss(batch.obs, action, noise=noise, t=t)
