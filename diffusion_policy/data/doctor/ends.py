"""Episodes as wholes: their ends, what follows their steps, their digests, episodes that stand twice.

Letters: N steps of all episodes, M episodes, T steps of one, Da numbers of an action.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding
from diffusion_policy.data.doctor.streams import Episode
from diffusion_policy.data.episodes import Ends
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions_check import NEXT, bounds_problem, flag_problems, next_mismatches

_SHOWN = 10  # episodes of a group that a sentence lists


class EndsCheck:
    """Judges what each episode says about its end and about what follows its steps.

    Args:
        keys: that are read.
        ends: (M,) of the episodes.
    """

    def __init__(self, keys: Sequence[str], ends: Ends) -> None:
        self._ends = ends
        self._flags: dict[str, list[NDArray[Any]]] = {key: [] for key in ("terminated", "truncated") if key in keys}
        self._differ: dict[str, dict[int, int]] = {key: {} for key in keys if NEXT + key in keys}

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key, found in self._flags.items():
            found.append(np.asarray(episode[key].reshape(len(episode[key]), -1).any(axis=1)))
        for key, found_in in self._differ.items():
            count = next_mismatches({key: episode[key].reshape(episode[NEXT + key].shape), **_next(episode, key)}, key)
            if count:
                found_in[i] = count

    def findings(self) -> list[Finding]:
        """Returns what is wrong, after all episodes."""
        flags = {key: np.concatenate(found) for key, found in self._flags.items()}
        wrong = [Finding("ends", "problem", what) for what in flag_problems(self._ends, flags)]
        for key, found in self._differ.items():
            if found:
                what = (
                    f"{NEXT}{key}: {sum(found.values())} steps tell of something else than the following step shows; "
                    f"episodes must end where the next row does not follow"
                )
                wrong.append(Finding("next-differs", "problem", what, key=NEXT + key, episodes=tuple(found)))
        return wrong


def _next(episode: Episode, key: str) -> dict[str, NDArray[Any]]:
    return {NEXT + key: episode[NEXT + key]}


def same_episodes(groups: Iterable[Sequence[int]]) -> list[Finding]:
    """Returns a finding for each group of episodes that are the same, number by number."""
    return [
        Finding(
            "same-episodes",
            "problem",
            f"episodes {', '.join(map(str, group[:_SHOWN]))}{' ...' if len(group) > _SHOWN else ''} are the same, "
            f"number by number; a split by episodes would train on its validation data",
            episodes=tuple(group),
        )
        for group in groups
    ]


def altered(buffer: ReplayBuffer, chained: Sequence[bytes]) -> list[Finding]:
    """Returns which episode is the first whose digest is not the stored one.

    Args:
        buffer: the data set.
        chained: (M,) digests of all keys.
    """
    stored = buffer.stored_digests()
    if stored is None:
        return []
    computed = np.frombuffer(b"".join(chained), np.uint8).reshape(stored.shape)
    wrong = np.flatnonzero((stored != computed).any(axis=1))
    if not wrong.size:
        return []
    what = f"episode {wrong[0]} is not what was written (its digest differs): changed or damaged since"
    return [Finding("altered", "problem", what, episodes=(int(wrong[0]),))]


def interrupted(buffer: ReplayBuffer) -> list[Finding]:
    """Returns what an interrupted append left."""
    hidden = buffer.hidden_steps
    if not hidden:
        return []
    what = f"{hidden} steps behind the last whole episode are ignored: an append was interrupted"
    return [Finding("interrupted", "note", what)]


def bounds_findings(
    low: NDArray[np.floating], high: NDArray[np.floating], bounds: Sequence[Sequence[float]]
) -> list[Finding]:
    """Returns which actions lie outside the environment's bounds.

    Args:
        low: (Da,) the smallest of the data.
        high: (Da,) the largest.
        bounds: [low, high] of the environment, Da numbers each.
    """
    what = bounds_problem(low, high, bounds)
    return [] if what is None else [Finding("bounds", "problem", what, key="action")]
