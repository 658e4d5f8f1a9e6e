"""What an augmenter is: fitted to real transitions, it draws others like them.

A model here draws whitened rows; this module turns them into transitions. Models that learn by gradients are trained
by whoever makes them (`training.augmenting.fitting`): they are given a trainer, and know of the loop only their loss.

Letters: N rows, B rows of a batch, D columns.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.augment.whitening import Bounds, Whitening
from diffusion_policy.errors import ConfigError

ROWS = 2048
"""Drawn at once by `sample`: what memory and a processor's caches like."""


SEEDING = 2
"""How batches get their seeds; a set that was begun by another way cannot go on. 1 was `seed + batch`."""


def batch_seed(seed: int, batch: int) -> int:
    """Returns the seed of one batch of a set, 32 bits, which is all that PyTorch's generator for the CPU looks at.

    Neighbouring seeds share no batches, as they would by `seed + batch`: both numbers are hashed (O'Neill's
    construction, which NumPy has). Two of n batches agree by chance, with a probability of n^2 / 2^33.
    """
    return int(np.random.SeedSequence(seed, spawn_key=(batch,)).generate_state(1)[0])


class ReplayAugmenter(Protocol):
    """Makes more transitions of recorded ones."""

    def fit(self, real: Transitions) -> None:
        """Learns what transitions look like."""
        ...

    def sample(self, count: int, *, seed: int) -> Transitions:
        """Returns `count` synthetic transitions; the same ones for the same seed."""
        ...

    def augment(self, real: Transitions, ratio: float, *, seed: int) -> Transitions:
        """Returns the real transitions and, after them, as many synthetic ones as make them a share `ratio` of all."""
        ...


class TransitionModel(nn.Module):
    """A density of whitened rows.

    Args:
        columns: of the table.
        bounds: of the action.

    Attributes:
        kind: its name.
    """

    kind: ClassVar[str]

    def __init__(self, columns: Columns, bounds: Bounds | None = None) -> None:
        super().__init__()
        self.columns, self.bounds = columns, bounds
        self.whitening = Whitening(columns, bounds)

    def fit(self, real: Transitions) -> None:
        """Measures the columns, then learns; see `ReplayAugmenter`."""
        self.whitening.fit(real)
        self.learn(real)

    def learn(self, real: Transitions) -> None:
        """Learns from transitions whose columns are measured."""
        raise NotImplementedError

    def draw_rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns whitened rows (count, D); all chance comes from the generator."""
        raise NotImplementedError

    def plain_config(self) -> dict[str, Any]:
        """Returns what makes the same model again, plain values; nothing where nothing can be chosen."""
        return {}

    @torch.no_grad()
    def sample_batch(self, count: int, *, seed: int, batch: int = 0) -> Transitions:
        """Returns `count` transitions that are drawn at once.

        Args:
            count: how many.
            seed: of all batches of a set.
            batch: which of them.
        """
        generator = torch.Generator().manual_seed(batch_seed(seed, batch))  # on the CPU: the same noise on any device
        return self.whitening.settled(self.draw_rows(count, generator))

    def sample(self, count: int, *, seed: int) -> Transitions:
        """Returns `count` transitions; those from row i * 2048 on are batch i. See `ReplayAugmenter`."""
        if count < 1:
            raise ConfigError(f"expected at least 1 sample, but got {count}")
        starts = range(0, count, ROWS)
        parts = [self.sample_batch(min(ROWS, count - at), seed=seed, batch=i).rows for i, at in enumerate(starts)]
        return Transitions(self.columns, np.concatenate(parts))

    def augment(self, real: Transitions, ratio: float, *, seed: int) -> Transitions:
        """See `ReplayAugmenter`."""
        if not 0 <= ratio < 1:
            raise ConfigError(f"ratio must be in [0, 1), the share of synthetic rows, but got {ratio}")
        count = round(len(real) * ratio / (1 - ratio))
        if not count:
            return real
        return Transitions(self.columns, np.concatenate([real.rows, self.sample(count, seed=seed).rows]))


Trainer = Callable[["LearnedModel", Transitions], None]
"""Trains a model whose columns are measured."""


class LearnedModel(TransitionModel):
    """A density that a network learns by gradients.

    Args:
        columns: of the table.
        bounds: of the action.
        network: what is trained, and averaged.
        train_by: trains it; None where it is only loaded, or trained by hand.
    """

    def __init__(
        self, columns: Columns, bounds: Bounds | None, network: nn.Module, train_by: Trainer | None = None
    ) -> None:
        super().__init__(columns, bounds)
        self.network = network
        self._train_by = train_by

    def learn(self, real: Transitions) -> None:
        """Trains the network.

        Raises:
            ConfigError: nobody said how.
        """
        if self._train_by is None:
            raise ConfigError(
                f"{self.kind} is trained by a loop; give it one: train_by=training.augmenting.fitting.InMemory"
            )
        self._train_by(self, real)

    def draw(self, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Returns the random numbers of a gradient step on `rows` rows, on the generator's device."""
        raise NotImplementedError

    def losses(self, rows: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Returns the loss (B,) of whitened rows (B, D)."""
        raise NotImplementedError

    def encodes_like(self, other: "LearnedModel") -> bool:
        """Whether the network of another model, of the same rows, sees their numbers as this one's does."""
        return type(other) is type(self)

    def holding(self, network: nn.Module) -> Self:
        """Returns this model with another network, e.g. the averaged one; nothing else is copied."""
        made = copy.copy(self)
        made._modules = {**self._modules, "network": network}
        return made
