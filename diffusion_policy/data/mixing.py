"""Real and synthetic transitions, or windows, in one batch, in a fixed proportion.

Letters: B batch, W real rows, S synthetic ones.
"""

from dataclasses import fields, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.data.dataset import Batch, WindowDataset
from diffusion_policy.data.joining import JoinedTransitions, JoinedWindows
from diffusion_policy.data.transitions import TransitionBatch, TransitionDataset
from diffusion_policy.errors import ConfigError, DataError

Ids = Tensor | NDArray[np.integer]
B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


class _Real(Protocol[B_co]):
    @property
    def device(self) -> torch.device: ...
    def __len__(self) -> int: ...
    def batch(self, ids: Ids) -> B_co: ...
    def describe(self, ids: Ids, *, limit: int = 5) -> str: ...


class _Synthetic(Protocol[B_co]):
    def __len__(self) -> int: ...
    def batch(self, ids: Ids) -> B_co: ...


class _Mixed(Generic[B]):
    """Batches of which round(ratio * B) rows, exactly, are synthetic; the real ones come first.

    An epoch is one of the real rows: a batch's numbers name B of them, of which the last round(ratio * B) give their
    places to synthetic ones, drawn with replacement. What is drawn is a function of these numbers, so there is nothing
    to save: a resumed run sees the same. Orders change from epoch to epoch, so all real rows take part.

    Args:
        real: recorded.
        synthetic: of an augmenter, with the same fields.
        ratio: share of synthetic rows, in [0, 1].
    """

    def __init__(self, real: _Real[B], synthetic: _Synthetic[B], ratio: float) -> None:
        if not 0 <= ratio <= 1:
            raise ConfigError(f"data.synthetic_ratio must be in [0, 1], but got {ratio}")
        self._real, self._synthetic, self.ratio = real, synthetic, ratio
        self.device = real.device

    def __len__(self) -> int:
        """W: an epoch is one of the real rows."""
        return len(self._real)

    def num_synthetic(self, rows: int) -> int:
        """Returns how many of a batch's rows are synthetic."""
        return round(self.ratio * rows)

    def batch(self, ids: Ids) -> B:
        """Returns rows.

        Args:
            ids: (B,) whole numbers in [0, len(self)).
        """
        return self.part(ids, slice(None))

    def part(self, ids: Ids, rows: slice) -> B:
        """Returns some rows of a batch, at least one: what is computed in pieces has the share of the whole.

        Args:
            ids: (B,) of the whole batch.
            rows: those of it that are wanted, in steps of 1.
        """
        numbers = torch.as_tensor(ids).cpu().numpy()
        count = self.num_synthetic(len(numbers))
        if not count:
            return self._real.batch(ids[rows])
        drawn = np.random.default_rng(numbers.astype(np.uint64)).integers(0, len(self._synthetic), count)
        start, stop, _ = rows.indices(len(numbers))
        real = len(numbers) - count
        synthetic = drawn[max(0, start - real) : max(0, stop - real)]
        if start >= real:
            return self._synthetic.batch(synthetic)
        recorded = self._real.batch(ids[start : min(stop, real)])
        return _joined(recorded, self._synthetic.batch(synthetic)) if len(synthetic) else recorded

    def describe(self, ids: Ids, *, limit: int = 5) -> str:
        """Returns where real rows lie, in one line for an error message."""
        return f"{self._real.describe(ids, limit=limit)}; {100 * self.ratio:g} % of a batch were synthetic"


class MixedTransitions(_Mixed[TransitionBatch]):
    """Real and synthetic transitions; see `_Mixed`.

    Attributes:
        windows: the real ones, e.g. for fitting normalisers.
    """

    def __init__(self, real: TransitionDataset | JoinedTransitions, synthetic: TransitionDataset, ratio: float) -> None:
        super().__init__(real, synthetic, ratio)
        self.real, self.synthetic = real, synthetic
        self.windows, self.left_out = real.windows, real.left_out

    def rewards(self) -> Tensor:
        """Returns the rewards of the real transitions (W,)."""
        return self.real.rewards()


class SyntheticWindows:
    """Windows that lie in memory as they are, without episodes.

    Args:
        obs: {key: (S, To, *shape)} float32.
        action: (S, Tp, Da) float32.
    """

    def __init__(self, obs: dict[str, Tensor], action: Tensor) -> None:
        if not len(action) or {len(each) for each in obs.values()} != {len(action)}:
            raise DataError(f"synthetic windows: expected as many of each field, at least 1, but got {len(action)}")
        self._obs, self._action = obs, action

    def __len__(self) -> int:
        """S."""
        return len(self._action)

    def batch(self, ids: Ids) -> Batch:
        """Returns windows by number."""
        chosen = torch.as_tensor(ids, device=self._action.device)
        obs = {key: each.index_select(0, chosen) for key, each in self._obs.items()}
        return Batch(obs, self._action.index_select(0, chosen))


class MixedWindows(_Mixed[Batch]):
    """Windows of demonstrations, and synthetic ones; see `_Mixed`."""

    def __init__(self, real: WindowDataset | JoinedWindows, synthetic: SyntheticWindows, ratio: float) -> None:
        super().__init__(real, synthetic, ratio)


def _joined(first: B, second: B) -> B:
    """Returns both batches, one after the other."""

    def both(one: Any, other: Any) -> Any:
        if isinstance(one, Tensor):
            return torch.cat([one, other])
        return {key: torch.cat([value, other[key]]) for key, value in one.items()}

    return replace(
        first, **{each.name: both(getattr(first, each.name), getattr(second, each.name)) for each in fields(first)}
    )
