"""Rewards as an agent sees them. Letters: N steps."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RewardScaling:
    """scale * ((reward - mean) / std + shift): measured on the real rewards, so that synthetic ones mean the same.

    Args:
        mean: subtracted.
        std: divided by.
        shift: added then.
        scale: multiplied with at last.
    """

    mean: float
    std: float
    shift: float
    scale: float

    @classmethod
    def of(cls, reward: np.ndarray, *, standardize: bool, shift: float, scale: float) -> "RewardScaling":
        """Returns what scales rewards like these (N,)."""
        mean, std = (float(reward.mean()), max(float(reward.std()), 1e-8)) if standardize else (0.0, 1.0)
        return cls(mean, std, shift, scale)

    def __call__(self, reward: np.ndarray) -> np.ndarray:
        """Returns rewards (N,) as an agent sees them."""
        scaled: np.ndarray = (self.scale * ((reward - self.mean) / self.std + self.shift)).astype(np.float32)
        return scaled
