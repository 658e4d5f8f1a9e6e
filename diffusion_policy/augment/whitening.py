"""Between transitions in their own units and what a model sees: whitened columns.

Each column gets mean 0 and standard deviation 1; a terminal stays 0 or 1 (as SynthER has it: Lu et al. 2023, their
code), and a column that never changes stays exactly what it is, whatever a model makes of it.

Letters: N rows, D columns.
"""

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.augment.transitions import Columns, Rows, Transitions
from diffusion_policy.errors import DataError

Bounds = tuple[tuple[float, ...], tuple[float, ...]]
"""(low, high) of an action, A numbers each."""


class Whitening(nn.Module):
    """Mean and deviation of every column; buffers, saved with the model.

    They stay on the CPU, in float64, wherever the model goes: some devices have no float64, and rows come from there.

    Args:
        columns: of the table.
        bounds: that actions are clipped to; None where there are none.

    Attributes:
        mean: (D,) float64; of a constant column its value.
        std: (D,) float64; 1 for constant columns and the terminal.
        constant: (D,) bool.
    """

    mean: Tensor
    std: Tensor
    constant: Tensor

    def __init__(self, columns: Columns, bounds: Bounds | None = None) -> None:
        super().__init__()
        self.columns, self.bounds = columns, bounds
        if bounds is not None and {len(bound) for bound in bounds} != {columns.action_size}:
            raise DataError(f"action bounds: expected {columns.action_size} numbers each, but got {bounds}")
        self.register_buffer("mean", torch.zeros(columns.size, dtype=torch.float64))
        self.register_buffer("std", torch.ones(columns.size, dtype=torch.float64))
        self.register_buffer("constant", torch.zeros(columns.size, dtype=torch.bool))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Leaves the buffers where they are."""
        return self

    def fit(self, real: Transitions) -> None:
        """Measures the columns.

        Raises:
            DataError: a number is not finite, or there are fewer than two rows.
        """
        if len(real) < 2:
            raise DataError(f"expected at least 2 transitions to measure, but got {len(real)}")
        bad = np.flatnonzero(~np.isfinite(real.rows).all(axis=0))
        if bad.size:
            names = ", ".join(self.columns.names[i] for i in bad[:5])
            raise DataError(f"transitions: {names} hold NaN or infinity; repair or leave out these episodes")
        rows = real.rows.astype(np.float64)
        constant = real.rows.max(axis=0) == real.rows.min(axis=0)
        mean, std = rows.mean(axis=0), rows.std(axis=0)
        mean[constant], std[constant] = rows[0, constant], 1.0
        if self.columns.outcome and not constant[self.columns.terminal_at]:
            mean[self.columns.terminal_at], std[self.columns.terminal_at] = 0.0, 1.0
        for buffer, values in ((self.mean, mean), (self.std, std), (self.constant, constant)):
            buffer.copy_(torch.from_numpy(values))

    def whiten(self, rows: Rows) -> Tensor:
        """Returns rows (N, D) as a model sees them, float32, on the CPU."""
        known = torch.from_numpy(np.ascontiguousarray(rows))
        return ((known.double() - self.mean) / self.std).float()

    def settled(self, whitened: Tensor) -> Transitions:
        """Returns what a model's rows (N, D) mean: in their units, and permitted.

        Constant columns are exact, declared ones rounded or one-hot, actions within their bounds, terminals 0 or 1.
        """
        rows = torch.where(self.constant, self.mean, whitened.cpu().double() * self.std + self.mean)
        columns = self.columns
        if columns.rounded:
            whole = list(columns.rounded)
            rows[:, whole] = rows[:, whole].round()
        for start, stop in columns.one_hot:
            largest = rows[:, start:stop].argmax(1)
            rows[:, start:stop] = torch.nn.functional.one_hot(largest, stop - start).to(rows.dtype)
        if self.bounds is not None:
            low, high = (torch.tensor(bound, dtype=rows.dtype).repeat(columns.pred_horizon) for bound in self.bounds)
            rows[:, columns.action_at] = rows[:, columns.action_at].clamp(low, high)
        if columns.outcome:
            rows[:, columns.terminal_at] = (rows[:, columns.terminal_at] > 0.5).to(rows.dtype)
        return Transitions(columns, rows.float().numpy())
