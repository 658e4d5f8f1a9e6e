"""Which recorded transitions or windows something was made of: two parties can find out whether they mean the same.

Letters: N steps of the chosen episodes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.replay_buffer import ReplayBuffer


@dataclass(frozen=True)
class Origin:
    """Some episodes of a data set; equal where keys, numbers, episodes and their ends are the same.

    Args:
        keys: what was read, sorted.
        digest: of these keys over the whole data set.
        episodes: how many are chosen.
        of: how many there are.
        chosen: digest of which, and of which of their steps are taken as terminated.
    """

    keys: tuple[str, ...]
    digest: str
    episodes: int
    of: int
    chosen: str

    @classmethod
    def read(
        cls,
        buffer: ReplayBuffer,
        keys: Sequence[str],
        episodes: NDArray[np.integer],
        terminated: NDArray[np.bool_],
    ) -> "Origin":
        """Returns the origin of what is read from a data set.

        Args:
            buffer: the data set.
            keys: what counts; those that it lacks are left out, so that the origin is another one.
            episodes: sorted, distinct.
            terminated: (N,), as they are learned from.
        """
        there = tuple(sorted(set(keys) & set(buffer.keys())))
        which = hashlib.sha256(np.asarray(episodes, np.int64).tobytes())
        which.update(np.asarray(terminated, bool).tobytes())
        return cls(there, buffer.digest(there), len(episodes), buffer.num_episodes, which.hexdigest())

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Origin":
        """Returns what `settings.plain` made of an origin."""
        return cls(**{**content, "keys": tuple(content["keys"])})

    def __str__(self) -> str:
        return (
            f"{self.episodes} of {self.of} episodes (choice {self.chosen[:8]}) of data with digest {self.digest[:12]}"
        )


def window_origin(buffer: ReplayBuffer, keys: Sequence[str], episodes: NDArray[np.integer]) -> Origin:
    """Returns the origin of windows of demonstrations, which tell of no ends.

    Args:
        buffer: the data set.
        keys: what counts.
        episodes: sorted, distinct.
    """
    return Origin.read(buffer, keys, episodes, np.zeros(0, bool))
