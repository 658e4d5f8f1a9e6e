"""Real and synthetic transitions in one batch, in a fixed proportion.

Letters: B batch, W real transitions, S synthetic ones.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.data.transitions import TransitionBatch, TransitionDataset
from diffusion_policy.errors import ConfigError


class MixedTransitions:
    """Batches of which round(ratio * B) rows, exactly, are synthetic; the real ones come first.

    An epoch is one of the real transitions: a batch's numbers name B of them, of which the last round(ratio * B) give
    their places to synthetic ones, drawn with replacement. What is drawn is a function of these numbers, so there is
    nothing to save: a resumed run sees the same. Orders change from epoch to epoch, so all real rows take part.

    Args:
        real: of the demonstrations.
        synthetic: of an augmenter, with the same fields.
        ratio: share of synthetic rows, in [0, 1].

    Attributes:
        windows: the real ones, e.g. for fitting normalisers.
    """

    def __init__(self, real: TransitionDataset, synthetic: TransitionDataset, ratio: float) -> None:
        if not 0 <= ratio <= 1:
            raise ConfigError(f"data.synthetic_ratio must be in [0, 1], but got {ratio}")
        self.real, self.synthetic, self.ratio = real, synthetic, ratio
        self.windows, self.device, self.left_out = real.windows, real.device, real.left_out

    def __len__(self) -> int:
        """W: an epoch is one of the real transitions."""
        return len(self.real)

    def num_synthetic(self, rows: int) -> int:
        """Returns how many of a batch's rows are synthetic."""
        return round(self.ratio * rows)

    def batch(self, ids: Tensor | NDArray[np.integer]) -> TransitionBatch:
        """Returns transitions.

        Args:
            ids: (B,) whole numbers in [0, len(self)).
        """
        numbers = torch.as_tensor(ids).cpu().numpy()
        count = self.num_synthetic(len(numbers))
        if not count:
            return self.real.batch(ids)
        drawn = np.random.default_rng(numbers.astype(np.uint64)).integers(0, len(self.synthetic), count)
        synthetic = self.synthetic.batch(drawn)
        if count == len(numbers):
            return synthetic
        return _joined(self.real.batch(ids[: len(numbers) - count]), synthetic)

    def describe(self, ids: Tensor | NDArray[np.integer], *, limit: int = 5) -> str:
        """Returns where real transitions lie, in one line for an error message."""
        return f"{self.real.describe(ids, limit=limit)}; {100 * self.ratio:g} % of a batch were synthetic"

    def rewards(self) -> Tensor:
        """Returns the rewards of the real transitions (W,)."""
        return self.real.rewards()


def _joined(first: TransitionBatch, second: TransitionBatch) -> TransitionBatch:
    return replace(
        first,
        obs={key: torch.cat([value, second.obs[key]]) for key, value in first.obs.items()},
        action=torch.cat([first.action, second.action]),
        reward=torch.cat([first.reward, second.reward]),
        discount=torch.cat([first.discount, second.discount]),
        next_obs={key: torch.cat([value, second.next_obs[key]]) for key, value in first.next_obs.items()},
    )
