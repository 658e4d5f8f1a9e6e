"""What the parts of a data set are worth: the mean return of each actor's episodes, and how often they succeeded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.data.episodes import succeeded
from diffusion_policy.data.replay_buffer import ReplayBuffer


def part_name(part: Mapping[str, Any]) -> str:
    """Returns who acted in a part, in words, from its entry in a provenance."""
    noise = [f"noise {part['noise']:g}"] if part.get("noise") else []
    return ", ".join([str(part["actor"]), *["stochastic"] * bool(part.get("stochastic")), *noise])


def mean_return(buffer: ReplayBuffer, first: int, stop: int) -> float | None:
    """Returns the mean return of the episodes [first, stop); None of no episodes.

    Args:
        buffer: with `reward`, one number a step.
        first: the first of them.
        stop: behind the last.
    """
    if stop <= first:
        return None
    begin = buffer.episode_slice(first).start
    ends = buffer.episode_ends[first:stop] - begin
    rewards = buffer.read("reward", begin, begin + int(ends[-1])).reshape(int(ends[-1])).astype(np.float64)
    return float(np.add.reduceat(rewards, np.concatenate([[0], ends[:-1]])).mean())


def success_rate(buffer: ReplayBuffer, first: int, stop: int) -> float | None:
    """Returns the share of the episodes [first, stop) that succeeded; None of no episodes or where nothing tells.

    Args:
        buffer: with `success`, or without.
        first: the first of them.
        stop: behind the last.
    """
    if stop <= first or "success" not in buffer:
        return None
    return float(succeeded(buffer["success"], buffer.episode_ends)[first:stop].mean())


@dataclass(frozen=True)
class Worth:
    """What a part of a data set is worth.

    Args:
        name: who acted, in words.
        mean_return: of the whole episodes.
        success_rate: of these; None where nothing tells.
    """

    name: str
    mean_return: float
    success_rate: float | None


def part_worths(buffer: ReplayBuffer) -> list[Worth]:
    """Returns what each part of a data set is worth, by its rewards.

    Args:
        buffer: a data set without parts counts as one; one without rewards (one number a step) has no returns.
    """
    if "reward" not in buffer or int(np.prod(buffer.shape("reward"))) != 1:
        return []
    record = buffer.attrs.get("provenance")
    if isinstance(record, Mapping) and "augmenter" in record:  # single transitions, of no episode
        return []
    parts = record.get("parts") if isinstance(record, Mapping) else None
    if not parts or sum(int(part["episodes"]) for part in parts) != buffer.num_episodes:
        parts = [{"actor": "the data set", "episodes": buffer.num_episodes}]
    found, first = [], 0
    for part in parts:
        stop = first + int(part["episodes"])
        last = stop - bool(part.get("cut"))
        mean = mean_return(buffer, first, last)
        if mean is not None:
            found.append(Worth(part_name(part), mean, success_rate(buffer, first, last)))
        first = stop
    return found
