"""Transitions for reinforcement learning: windows with what came of them, over the same replay buffers.

In a transition the policy saw To observations, the last of them now, executed the Ta actions from now on, collected
their rewards, and saw the next To observations Ta steps later. With To = Ta = Tp = 1 it is the usual (s, a, r, s').
Every step of an episode is a now from which Ta actions were executed, up to the last such; where the episode
terminated, also the steps after that, whose chunk the end cuts short. Where the window of Tp actions goes beyond the
episode, its last action is repeated, as in `windows`.

The next observation is the row after, in the same episode. Where an episode was truncated there is none, unless the
data set stores `next_<key>`: such a transition is left out, for neither a value of 0 nor a made-up observation is true.

Letters: N steps, M episodes, W transitions, B batch; To, Ta, Tp horizons.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.data.dataset import Batch, WindowDataset
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TransitionBatch(Batch):
    """Windows, and what came of them.

    Args:
        reward: (B,) float32, sum over the executed steps j, up to the episode's end, of discount^j times the reward.
        discount: (B,) float32, what the next value counts: discount^Ta, and 0 where the episode terminated.
        next_obs: {key: (B, To, *shape)}, as `obs`; anything where discount is 0.
    """

    reward: Tensor
    discount: Tensor
    next_obs: dict[str, Tensor]


class TransitionDataset:
    """The transitions of some episodes whose outcome is known.

    Args:
        windows: what was seen and done; mirror images may follow the episodes.
        outcomes: of the episodes, without mirror images.
        discount: of a step, in [0, 1].

    Attributes:
        windows: as given.
        left_out: how many transitions have an unknown outcome.

    Raises:
        DataError: no transition has a known outcome, or the two are of different episodes.
        ConfigError: discount is out of range.
    """

    def __init__(self, windows: WindowDataset, outcomes: Outcomes, *, discount: float) -> None:
        if not 0 <= discount <= 1:
            raise ConfigError(f"agent.discount must be in [0, 1], but got {discount}")
        copies, rest = divmod(windows.num_steps, len(outcomes.reward))
        if rest or copies not in (1, 2):
            raise DataError(f"expected outcomes of {windows.num_steps} steps, but got {len(outcomes.reward)}")
        self.windows, self.device = windows, windows.device
        horizons = windows.index.horizons
        executed = horizons.action_horizon
        terminated = np.tile(outcomes.terminated, copies)
        now, low, last, episode = _all_nows(windows.index.episode_ends, executed, terminated)  # each (W,)
        padded = np.append(np.tile(outcomes.reward, copies), np.float32(0))  # what is earned after an end
        steps = [np.where(now + j <= last, now + j, -1) for j in range(executed)]
        earned = sum(np.float32(discount**j) * padded[step] for j, step in enumerate(steps))  # (W,)
        ended = terminated[last] & (now + executed > last)
        follows = now + executed  # the step whose observation is next; `last` + 1 where the episode is over
        # of the episodes alone: how their mirror images would end is not stored
        final = {key: torch.from_numpy(seen) for key, seen in outcomes.final_obs.items()} if copies == 1 else {}
        known = np.flatnonzero((follows <= last) | ended | bool(final))
        self.left_out = len(now) - len(known)
        if not len(known):
            raise DataError(
                f"transitions: of {len(now)} none has a known outcome, every episode is truncated within its first; "
                f"lower horizons.action_horizon, or store next_<key>"
            )
        if self.left_out:
            logger.info("transitions: %d of %d left out, truncated before their outcome", self.left_out, len(now))
        self._reward = self._kept(np.asarray(earned, np.float32)[known])
        self._discount = self._kept(np.where(ended, 0, discount**executed).astype(np.float32)[known])
        self._window = self._kept(np.stack([now - horizons.start, low, last], axis=1)[known])  # (W, 3)
        self._next = self._kept(np.stack([follows, low, last], axis=1)[known])  # (W, 3)
        self._final = {key: seen.to(self.device) for key, seen in final.items()}
        self._episode = self._kept(episode[known])
        self._offsets = torch.arange(1 - horizons.obs_horizon, 1, device=self.device)

    def _kept(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self._reward)

    def batch(self, ids: Tensor | NDArray[np.integer]) -> TransitionBatch:
        """Returns transitions by number: the hot path of training.

        Args:
            ids: (B,) whole numbers in [0, len(self)).
        """
        ids = torch.as_tensor(ids, device=self.device)
        seen = self.windows.window_at(self._window.index_select(0, ids))
        follows, low, last = self._next.index_select(0, ids).T[:, :, None]  # each (B, 1)
        steps = follows + self._offsets  # (B, To)
        after = self.windows.obs_at(torch.clamp(steps, low, last))
        if self._final:
            after = {key: self._with_final(key, value, steps > last, ids) for key, value in after.items()}
        reward, discount = self._reward.index_select(0, ids), self._discount.index_select(0, ids)
        return TransitionBatch(seen.obs, seen.action, reward, discount, after)

    def _with_final(self, key: str, seen: Tensor, over: Tensor, ids: Tensor) -> Tensor:
        """Returns seen (B, To, *shape) with the final observation where the episode is `over` (B, To)."""
        final = self._final[key].index_select(0, self._episode.index_select(0, ids)).unsqueeze(1)  # (B, 1, *shape)
        return torch.where(over.reshape(*seen.shape[:2], *(1,) * (seen.ndim - 2)), final, seen)

    def describe(self, ids: Tensor | NDArray[np.integer], *, limit: int = 5) -> str:
        """Returns where transitions lie, in one line for an error message."""
        chosen = torch.as_tensor(ids, device=self.device)
        listed = []
        for first, low, _ in self._window[chosen[:limit]].tolist():
            episode = int(np.searchsorted(self.windows.index.episode_ends, low, side="right"))
            now = first + self.windows.index.horizons.start - low
            listed.append(f"episode {self.windows.index.episode_ids[episode]}, step {now}")
        return "; ".join(listed) + (f"; and {len(chosen) - limit} more" if len(chosen) > limit else "")

    def rewards(self) -> Tensor:
        """Returns the rewards of all transitions (W,), each summed over its executed steps."""
        return self._reward


def _all_nows(episode_ends: Array, executed: int, terminated: Array) -> tuple[Array, Array, Array, Array]:
    """Returns (now, first step, last step, episode), each (W,), of every step from which `executed` actions follow.

    Where the episode terminated, also of the steps from which fewer do: a world that is over ends a chunk early, and
    states shortly before that would otherwise be values that nothing ever taught, from which all others learn.
    """
    firsts = episode_ends - lengths(episode_ends)
    over = terminated[episode_ends - 1]
    counts = np.where(over, lengths(episode_ends), np.maximum(0, lengths(episode_ends) - executed + 1))
    episode = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return firsts[episode] + within, firsts[episode], episode_ends[episode] - 1, episode
