"""Several data sets as one: their windows, or transitions, numbered one set after the other; nothing is copied.

Letters: B batch, W windows or transitions of all sets, N steps of all sets, K sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.data.dataset import Batch, WindowDataset
from diffusion_policy.data.transitions import TransitionBatch, TransitionDataset

Ids = Tensor | NDArray[np.integer]
B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


class _Part(Protocol[B_co]):
    @property
    def device(self) -> torch.device: ...
    def __len__(self) -> int: ...
    def batch(self, ids: Ids) -> B_co: ...
    def describe(self, ids: Ids, *, limit: int = 5) -> str: ...


class _Joined(Generic[B]):
    """Rows of several sets, by one number: those of the first set, then those of the second.

    Args:
        parts: at least one, on one device, by the names that messages call them.

    Attributes:
        sizes: (K,) how many rows each has.
    """

    def __init__(self, parts: Mapping[str, _Part[B]]) -> None:
        self._parts, self._names = list(parts.values()), list(parts)
        self.device = self._parts[0].device
        self.sizes = tuple(len(part) for part in self._parts)
        self._ends = np.cumsum(self.sizes, dtype=np.int64)
        self._firsts = self._ends - np.asarray(self.sizes, np.int64)

    def __len__(self) -> int:
        """W."""
        return int(self._ends[-1])

    def batch(self, ids: Ids) -> B:
        """Returns rows, in the order that they are asked for.

        Args:
            ids: (B,) whole numbers in [0, len(self)).
        """
        numbers, which = self._located(ids)
        there: list[int] = np.unique(which).tolist()
        if len(there) == 1:
            return self._parts[there[0]].batch(numbers)
        places = [torch.from_numpy(np.flatnonzero(which == k)).to(self.device) for k in there]
        found = [self._parts[k].batch(numbers[which == k]) for k in there]
        return _placed(found, places, len(numbers))

    def describe(self, ids: Ids, *, limit: int = 5) -> str:
        """Returns where rows lie, in one line for an error message; the first `limit` of them."""
        numbers, which = self._located(ids)
        listed = [
            f"{self._names[k]}: {self._parts[k].describe(numbers[i : i + 1])}" for i, k in enumerate(which[:limit])
        ]
        return "; ".join(listed) + (f"; and {len(numbers) - limit} more" if len(numbers) > limit else "")

    def _located(self, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows' numbers in their own sets (B,), and which sets these are (B,)."""
        numbers = torch.as_tensor(ids).cpu().numpy().astype(np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(self)):
            raise IndexError(f"ids must be in [0, {len(self)}), but got {numbers.min()}..{numbers.max()}")
        which = np.searchsorted(self._ends, numbers, side="right").astype(np.int64)
        return numbers - self._firsts[which], which


class JoinedWindows(_Joined[Batch]):
    """Windows of several data sets; see `_Joined`.

    Args:
        parts: windows of the same fields and horizons, on one device.

    Attributes:
        parts: as given.
    """

    def __init__(self, parts: Mapping[str, WindowDataset]) -> None:
        super().__init__(parts)
        self.parts = dict(parts)

    @property
    def num_steps(self) -> int:
        """N."""
        return sum(part.num_steps for part in self.parts.values())

    def all_actions(self) -> Tensor:
        """Returns the actions of all steps, (N, Da), for fitting a normaliser."""
        return torch.cat([part.all_actions() for part in self.parts.values()])

    def all_obs(self, key: str) -> Tensor:
        """Returns one field of all steps, (N, *shape), for fitting a normaliser."""
        return torch.cat([part.all_obs(key) for part in self.parts.values()])


class JoinedTransitions(_Joined[TransitionBatch]):
    """Transitions of several data sets; see `_Joined`.

    Args:
        parts: transitions of the same fields and horizons, on one device.

    Attributes:
        windows: their windows.
        left_out: how many transitions have an unknown outcome.
    """

    def __init__(self, parts: Mapping[str, TransitionDataset]) -> None:
        super().__init__(parts)
        self._sets = tuple(parts.values())
        self.windows = JoinedWindows({name: part.windows for name, part in parts.items()})
        self.left_out = sum(part.left_out for part in self._sets)

    def rewards(self) -> Tensor:
        """Returns the rewards of all transitions (W,), each summed over its executed steps."""
        return torch.cat([part.rewards() for part in self._sets])


def _placed(found: Sequence[B], places: Sequence[Tensor], rows: int) -> B:
    """Returns batches as one of so many rows, each batch's at its places."""

    def joined(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {key: joined([each[key] for each in values]) for key in values[0]}
        out = torch.empty((rows, *values[0].shape[1:]), dtype=values[0].dtype, device=values[0].device)
        for place, each in zip(places, values, strict=True):
            out.index_copy_(0, place, each)
        return out

    columns = {each.name: joined([getattr(one, each.name) for one in found]) for each in fields(found[0])}
    return replace(found[0], **columns)
