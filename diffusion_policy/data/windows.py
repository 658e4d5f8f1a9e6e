"""Which steps of the episodes form a training window: index arithmetic over `episode_ends`, no loop.

Letters: M episodes, L steps of one; To, Ta, Tp = obs_horizon, action_horizon, pred_horizon; B windows asked for.

A window is Tp consecutive steps; its first To carry observations and all carry actions. So that a policy also
learns from the first step of an episode (when it has seen one observation only) and for its last Ta steps, a window
may stick out of its episode by To - 1 steps before and Ta - 1 after; there the edge step is repeated (Chi et al.
2023). An episode of L steps has L - Tp + To + Ta - 1 windows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import Horizons
from diffusion_policy.data.episodes import checked_ends, lengths, starts
from diffusion_policy.errors import DataError

Indices = NDArray[np.int64]


class WindowIndex:
    """Numbers the windows of some episodes, episode after episode, and says which steps each one holds.

    An episode needs at least Tp steps: then at least one of its windows holds no repeated step. The padding could
    stretch shorter ones, but into windows that are mostly invention; so they are refused, or left out on demand.

    Args:
        episode_ends: (M,) exclusive, cumulative ends, as in a replay buffer.
        horizons: To, Ta, Tp.
        episode_ids: (M,) how the episodes are called in messages; 0, 1, ... by default.
        drop_short: give episodes shorter than Tp no windows, instead of refusing them.

    Raises:
        DataError: an episode is shorter than a window, or no window is left.
    """

    def __init__(
        self,
        episode_ends: NDArray[np.integer],
        horizons: Horizons,
        *,
        episode_ids: Sequence[int] | Indices | None = None,
        drop_short: bool = False,
    ) -> None:
        self.horizons = horizons
        self.episode_ends = ends = checked_ends(np.asarray(episode_ends), "windows")
        self.episode_ids = np.arange(len(ends)) if episode_ids is None else np.asarray(episode_ids, np.int64)
        self._first = starts(ends)
        self._last = ends - 1
        length = lengths(ends)
        short = length < horizons.pred_horizon
        if short.any() and not drop_short:
            raise DataError(self._too_short(short, length))
        padding = horizons.obs_horizon + horizons.action_horizon - 1
        windows = np.where(short, 0, length - horizons.pred_horizon + padding)
        if not windows.any():
            raise DataError(
                f"windows: none left, no episode has {horizons.pred_horizon} steps; lower horizons.pred_horizon"
            )
        self._window_ends = np.cumsum(windows)
        self.dropped = [int(i) for i in self.episode_ids[short]]

    def __len__(self) -> int:
        return int(self._window_ends[-1])

    def steps(self, ids: NDArray[np.integer]) -> Indices:
        """Returns the steps of windows: (B,) -> (B, Tp), clipped to the episode."""
        first, low, high = self.bounds(ids).T
        offsets = np.arange(self.horizons.pred_horizon)
        steps: Indices = np.clip(first[:, None] + offsets, low[:, None], high[:, None])  # (B, Tp)
        return steps

    def obs_steps(self, ids: NDArray[np.integer]) -> Indices:
        """Returns the steps whose observations the policy sees: (B,) -> (B, To), the last of them is now."""
        return self.steps(ids)[:, : self.horizons.obs_horizon]

    def bounds(self, ids: NDArray[np.integer]) -> Indices:
        """Returns (first step before clipping, first and last step of the episode) of windows: (B,) -> (B, 3)."""
        ids = self._checked(ids)
        episode = self._position(ids)
        low, high = self._first[episode], self._last[episode]
        before = self._window_ends[episode - 1] * (episode > 0)
        return np.stack([low - (self.horizons.obs_horizon - 1) + ids - before, low, high], axis=1)

    def episode_of(self, ids: NDArray[np.integer]) -> Indices:
        """Returns the ids of the episodes that windows lie in: (B,) -> (B,)."""
        return self.episode_ids[self._position(self._checked(ids))]

    def describe(self, window_id: int) -> str:
        """Returns where a window lies, for error messages: "episode 17, steps 40-55 of 120"."""
        ids = np.array([window_id])
        (first, low, high), steps = self.bounds(ids)[0], self.steps(ids)[0] - self._first[self._position(ids)[0]]
        text = f"episode {self.episode_of(ids)[0]}, steps {steps[0]}-{steps[-1]} of {high - low + 1}"
        before = max(0, low - first)
        after = max(0, first + self.horizons.pred_horizon - 1 - high)
        return text + (f" (edges repeated: {before} before, {after} after)" if before or after else "")

    def _position(self, ids: Indices) -> Indices:
        return np.searchsorted(self._window_ends, ids, side="right")

    def _checked(self, ids: NDArray[np.integer]) -> Indices:
        checked = np.asarray(ids, np.int64)
        if checked.size and not (checked.min() >= 0 and checked.max() < len(self)):
            raise IndexError(f"window ids must be in [0, {len(self)}), but got {checked.min()}..{checked.max()}")
        return checked

    def _too_short(self, short: NDArray[np.bool_], length: Indices) -> str:
        first = int(np.flatnonzero(short)[0])
        return (
            f"episodes must have at least horizons.pred_horizon = {self.horizons.pred_horizon} steps, one window, but "
            f"{int(short.sum())} of {len(short)} episodes are shorter, the first is episode {self.episode_ids[first]} "
            f"with {length[first]}; set data.drop_short=true to leave them out, or lower horizons.pred_horizon"
        )
