"""What came of the steps of a data set: rewards, ends, and what was seen after the last step of an episode.

Letters: N steps, M episodes.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import obs_source, read_obs
from diffusion_policy.data.transitions_check import NEXT, constant_length_terminals, mismatches
from diffusion_policy.errors import DataError

Array = NDArray[Any]
Ends = Literal["refuse", "terminated", "truncated"]
"""Where truncation may be stored as termination: "refuse" data that look like it (see `constant_length_terminals`; one
real termination at another length hides it), "terminated" trusts them, "truncated" takes every termination at the
greatest length as a time limit."""


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
        following = replace(source, key=NEXT + source.key)
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
