"""A mixture of Gaussians over actions, as a network's last layer (Mandlekar et al. 2021, "robomimic").

Letters: B batch, T steps, K modes, F features, Da numbers in an action.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Mixture:
    """K Gaussians with diagonal covariance, for each of any leading axes (written B, T here).

    Args:
        logits: (B, T, K) of the weights.
        mean: (B, T, K, Da).
        std: (B, T, K, Da).
    """

    logits: Tensor
    mean: Tensor
    std: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        """Returns the log-density (B, T) of actions (B, T, Da)."""
        z = (action.unsqueeze(-2) - self.mean) / self.std  # (B, T, K, Da)
        each = -0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(F.log_softmax(self.logits, -1) + each.sum(-1), -1)

    def sample(self, noise: Tensor, std: float) -> Tensor:
        """Returns actions (B, T, Da): a mode by its weight, its mean, and a little noise.

        Args:
            noise: standard normal (B, T, 1 + Da); the first number chooses the mode.
            std: of the noise around the mean, in place of the mode's own.
        """
        chosen = choose(self.logits, noise[..., :1])[..., None].expand(*self.mean.shape[:-2], 1, self.mean.shape[-1])
        mean = self.mean.gather(-2, chosen).squeeze(-2)  # (B, T, Da)
        return mean + std * noise[..., 1:]


class MixtureHead(nn.Module):
    """Features (..., F) -> a `Mixture` of actions inside [-1, 1].

    Args:
        features: F.
        action_dim: Da.
        modes: K.
        min_std: added to every standard deviation, so that no mode becomes a needle.
    """

    def __init__(self, features: int, action_dim: int, modes: int, min_std: float) -> None:
        super().__init__()
        self._modes, self._min_std = modes, min_std
        self.linear = nn.Linear(features, modes * (1 + 2 * action_dim))

    def forward(self, features: Tensor) -> Mixture:
        """Returns the mixture; means are squashed by tanh, as published: normalised actions are in [-1, 1]."""
        with torch.autocast(features.device.type, enabled=False):  # densities of sharp modes need more than bfloat16
            out = self.linear(features.float())
        logits, rest = out[..., : self._modes], out[..., self._modes :].unflatten(-1, (self._modes, -1))
        mean, scale = rest.chunk(2, dim=-1)  # (..., K, Da) each
        return Mixture(logits, mean.tanh(), F.softplus(scale) + self._min_std)


def choose(logits: Tensor, normal: Tensor) -> Tensor:
    """Returns indices (..., R) of logits (..., K), drawn by standard-normal numbers (..., R).

    The same number makes the same choice: its rank among all normal numbers is looked up in the weights.
    """
    below = logits.softmax(-1).cumsum(-1)[..., :-1].contiguous()  # without the last: rounding must not lead beyond it
    return torch.searchsorted(below, torch.special.ndtr(normal).contiguous())
