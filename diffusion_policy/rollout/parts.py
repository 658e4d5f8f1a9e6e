"""The parts of a data set that is being collected: who acted in each, and how much of it there is.

A part is what one actor did. Parts follow one another, and so do their seeds. Letters: T steps of an episode.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.worth import mean_return, part_name, success_rate

Episode = Mapping[str, Array]

_WRITE_BYTES = 1 << 20  # short episodes are written together: each write costs as much as a thousand steps of a hopper
_WRITE_SECONDS = 0.5  # ... but a process that is killed loses no more than this
_PATIENCE = 20  # attempts per wanted episode before giving up


@dataclass(frozen=True)
class Amount:
    """How much every part holds: so many episodes, or so many steps.

    Args:
        episodes: whole ones.
        steps: the last episode is cut where they are reached.

    Raises:
        ConfigError: neither or both are given, or less than 1.
    """

    episodes: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.steps is None):
            raise ConfigError(f"expected either episodes or steps, but got {self.episodes} and {self.steps}")
        if self.total < 1:
            raise ConfigError(f"expected {self.unit} >= 1, but got {self.total}")

    @property
    def unit(self) -> str:
        """What is counted: "episodes" or "steps"."""
        return "steps" if self.episodes is None else "episodes"

    @property
    def total(self) -> int:
        """Of a part."""
        return self.steps or 0 if self.episodes is None else self.episodes

    def to_dict(self) -> dict[str, int]:
        """Returns what a provenance holds."""
        return {self.unit: self.total}

    def attempts(self, kept: int) -> int:
        """Returns how many attempts a part may take before the next episode is kept.

        Args:
            kept: episodes so far.
        """
        return _PATIENCE * (kept + 1 if self.episodes is None else self.episodes)

    def cut(self, episode: Episode, steps: int) -> tuple[Episode, bool]:
        """Returns an episode, cut to what is missing, and whether that took something away.

        A cut end is `truncated`, never `terminated`: the world would have gone on.

        Args:
            episode: {key: (T, *shape)}.
            steps: that the part has already.
        """
        left = len(episode["reward"]) if self.steps is None else self.steps - steps
        if len(episode["reward"]) <= left:
            return episode, False
        shorter = {key: values[:left].copy() for key, values in episode.items()}
        shorter["truncated"][-1] = True
        return shorter, True


@dataclass
class Part:
    """What one actor did.

    Args:
        details: of the actor: its name, what makes it this one, plain values.
        episodes: kept.
        steps: of these.
        first_seed: of its first attempt; None before.
        last_seed: of its last kept episode; None before.
        cut: whether the last episode was cut, so that its return says nothing.
        mean_return: of the other episodes; None until the part is complete or the collection ends without it.
        success_rate: likewise; None, too, where the environment does not tell.
    """

    details: Mapping[str, Any]
    episodes: int = 0
    steps: int = 0
    first_seed: int | None = None
    last_seed: int | None = None
    cut: bool = False
    mean_return: float | None = None
    success_rate: float | None = None

    @property
    def name(self) -> str:
        """The actor and what makes it special, for people: "Hopper_sac.npz, stochastic"."""
        return part_name(self.details)

    def to_dict(self) -> dict[str, Any]:
        """Returns the part as a provenance holds it."""
        names = ("episodes", "steps", "first_seed", "last_seed", "cut", "mean_return", "success_rate")
        return {**self.details, **{name: getattr(self, name) for name in names}}


class Ledger:
    """Notes in the provenance which seeds gave which episodes, and appends these; a kill between the two is mended.

    Args:
        buffer: with a provenance that may tell of earlier work: `seeds`, `parts`.
        record: the provenance; it is changed.
        details: of each part's actor.
        amount: of each part.
    """

    def __init__(
        self, buffer: ReplayBuffer, record: dict[str, Any], details: Sequence[Mapping[str, Any]], amount: Amount
    ) -> None:
        self.buffer, self.record, self.amount = buffer, record, amount
        self._tells = "success" in buffer if buffer.num_episodes else None  # as its first episode does
        self._waiting: list[Episode] = []
        self._waiting_bytes, self._written = 0, time.monotonic()
        self.seeds = list(record["seeds"])[: buffer.num_episodes]  # noted before their episodes: these may be lacking
        ends, first = [0, *buffer.episode_ends.tolist()], 0
        self.parts: list[Part] = []
        for own, noted in zip(details, record["parts"], strict=True):
            stop = min(first + int(noted["episodes"]), len(self.seeds))
            part = Part(own, stop - first, ends[stop] - ends[first])
            if stop > first:
                part.first_seed, part.last_seed = int(noted["first_seed"]), self.seeds[stop - 1]
                part.cut = bool(noted["cut"]) and stop - first == noted["episodes"]
            self.parts.append(part)
            first = stop

    @property
    def upcoming(self) -> int:
        """The seed of the next attempt, if the last one was kept."""
        return self.seeds[-1] + 1 if self.seeds else int(self.record["seed"])

    def done(self, part: Part) -> int:
        """Returns how many episodes or steps a part has, whichever are counted."""
        return part.steps if self.amount.episodes is None else part.episodes

    def complete(self) -> bool:
        """Returns whether all parts have what they should."""
        return all(self.done(part) >= self.amount.total for part in self.parts)

    def keep(self, part: Part, seed: int, episode: Episode) -> None:
        """Takes in an episode of a part; it is written now or soon."""
        if self._tells is None:
            self._tells = "success" in episode
        if self._tells != ("success" in episode):  # some environments tell it only when it is so
            told = {"success": np.zeros(len(episode["reward"]), bool)} if self._tells else {}
            episode = {**{key: values for key, values in episode.items() if key != "success"}, **told}
        episode, part.cut = self.amount.cut(episode, part.steps)
        part.episodes += 1
        part.steps += len(episode["reward"])
        part.last_seed = seed
        self.seeds.append(seed)
        self._waiting.append(episode)
        self._waiting_bytes += sum(values.nbytes for values in episode.values())
        if self._waiting_bytes >= _WRITE_BYTES or time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what waits."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if waiting:
            self._note()
            self.buffer.add_episodes(waiting)
        self._written = time.monotonic()

    def finish_begun(self) -> None:
        """Writes what waits, and what the parts are worth as far as they have come: a collection ends, early or not."""
        self.write()
        for part in self.parts if self.buffer.num_episodes == len(self.seeds) else ():  # or a write has failed
            if part.episodes and part.mean_return is None:
                self.finish(part)

    def finish(self, part: Part) -> None:
        """Writes what waits, and what a part is worth."""
        self.write()
        stop = sum(each.episodes for each in self.parts[: self.parts.index(part) + 1])
        first, stop = stop - part.episodes, stop - part.cut
        part.mean_return = mean_return(self.buffer, first, stop)
        part.success_rate = success_rate(self.buffer, first, stop)
        self._note()

    def _note(self) -> None:
        attempts = self.upcoming - int(self.record["seed"])
        parts = [part.to_dict() for part in self.parts]
        self.record |= {"seeds": self.seeds, "attempts": attempts, "parts": parts}
        self.buffer.update_attrs({"provenance": self.record})
