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
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.data.dataset import Batch, WindowDataset
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import obs_source, read_obs
from diffusion_policy.data.transitions_check import constant_length_terminals, mismatches
from diffusion_policy.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Ends = Literal["refuse", "terminated", "truncated"]
"""Where truncation may be stored as termination: "refuse" data that look like it (see `constant_length_terminals`; one
real termination at another length hides it), "terminated" trusts them, "truncated" takes every termination at the
greatest length as a time limit."""


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


@dataclass(frozen=True)
class Outcomes:
    """What came of each step of some episodes.

    Args:
        reward: (N,) float32.
        terminated: (N,) bool, true only at ends of episodes.
        final_obs: {key: (M, *shape)} seen after each episode's last step, for those fields whose data set stores it;
            all fields or none.
    """

    reward: Array
    terminated: Array
    final_obs: dict[str, Array]

    @classmethod
    def read(cls, buffer: ReplayBuffer, episodes: Array, obs_spec: ObsSpec, ends: Ends = "refuse") -> "Outcomes":
        """Returns what a replay buffer says of some episodes.

        Args:
            buffer: it needs `reward` and `terminated`, a number and a bool a step.
            episodes: sorted, distinct.
            obs_spec: the fields whose final observations are wanted.
            ends: see `Ends`.

        Raises:
            DataError: rewards or ends are missing or not finite, an episode goes on after it terminated, its
                truncations seem to be stored as terminations, or stored next observations do not follow.
        """
        for key, why in (("reward", "learning from rewards"), ("terminated", "knowing where nothing follows")):
            if key not in buffer:
                raise DataError(
                    f"{buffer.location}: {why} needs data '{key}', but the data set has: {', '.join(buffer.keys())}; "
                    f"record it (dp-collect does), or train without agent="
                )
        number = ObsField("low_dim", ())
        reward = read_obs("reward", number, buffer, episodes)
        terminated = read_obs("terminated", number, buffer, episodes) != 0
        stops = np.cumsum(lengths(buffer.episode_ends)[episodes])
        early = np.setdiff1d(np.flatnonzero(terminated), stops - 1)
        if len(early):
            raise DataError(
                f"{buffer.location}: {len(early)} steps are terminated, but their episodes go on; end the episodes "
                f"there (meta/episode_ends)"
            )
        terminated = _settled(terminated, stops, ends, buffer.location)
        return cls(reward, terminated, _final_obs(buffer, episodes, obs_spec, stops))


def _settled(terminated: Array, stops: Array, ends: Ends, where: str) -> Array:
    """Returns `terminated` (N,) as `ends` says of episodes that stop before `stops` (M,)."""
    if ends == "refuse":
        length = constant_length_terminals(stops, terminated)
        if length is not None:
            raise DataError(
                f"{where}: every terminated episode has {length} steps, the most of any: a time limit stored as "
                f"termination, as it seems, which would teach that nothing follows; say data.ends=truncated if it is "
                f"one, data.ends=terminated if the task ends there"
            )
    if ends == "truncated":
        steps = lengths(stops)
        limited = stops[steps == steps.max()] - 1
        if not terminated[limited].any():
            raise DataError(
                f"{where}: data.ends=truncated, but no episode of the greatest length, {steps.max()} steps, is stored "
                f"as terminated; leave it out"
            )
        terminated = terminated.copy()
        terminated[limited] = False
    return terminated


def _final_obs(buffer: ReplayBuffer, episodes: Array, obs_spec: ObsSpec, stops: Array) -> dict[str, Array]:
    """Returns {key: (M, *shape)} seen after the episodes; empty unless the data set stores it for all fields."""
    finals: dict[str, Array] = {}
    for key, spec in obs_spec.items():
        source = obs_source(key, spec, buffer)
        following = replace(source, key=f"next_{source.key}")
        if following.key not in buffer or spec.is_picture:
            return {}
        rows = read_obs(f"next {key}", replace(spec, source=str(following)), buffer, episodes)
        if (np.diff(stops, prepend=0) > 1).any():
            _check_follow(rows, read_obs(key, spec, buffer, episodes), stops, f"{buffer.location}: {following.key}")
        finals[key] = rows[stops - 1]
    return finals


def _check_follow(told: Array, seen: Array, stops: Array, what: str) -> None:
    """Raises DataError where what is stored as next (N, *shape) is not what the following step saw."""
    inside = np.delete(np.arange(len(seen)), stops - 1)
    wrong = mismatches(told[inside], seen[inside + 1])
    if wrong:
        raise DataError(
            f"{what} is not what the following step holds at {wrong} of {len(inside)} steps inside episodes; end the "
            f"episodes there (meta/episode_ends), or leave the key out; dp-inspect counts them by key"
        )


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
