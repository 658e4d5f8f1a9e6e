"""Episodes side by side: which one runs in which slot, what it saw last, and what is to happen next.

Letters: E slots.
"""

import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import Array
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.episode import Begin, Command, EpisodeResult, Moment
from diffusion_policy.rollout.slots import Slots


@dataclass(frozen=True)
class Plan:
    """What to evaluate: episode i of `episodes` runs with seed + i, in an environment made from id and kwargs."""

    env_id: str
    episodes: int
    seed: int
    env_kwargs: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seed < 0:
            raise ConfigError(f"episodes must be >= 1 and seed >= 0, but got {self.episodes} and {self.seed}")


class Rollouts:
    """The loop over all episodes: which one runs in which slot, what it saw last, and what is to happen next."""

    def __init__(
        self, controller: RecedingHorizonController, slots: Slots, size: int, plan: Plan, film: VideoGrid | None
    ) -> None:
        self.begun, self.env_steps = time.perf_counter(), 0
        self._controller, self._slots, self._plan, self._film = controller, slots, plan, film
        self._episodes = {place: place for place in range(size)}  # slot -> the episode that runs in it
        self._seeds = [plan.seed + place for place in range(size)]  # of the latest episode of each slot
        self._obs: list[dict[str, Any]] = [{}] * size
        self._moved: set[int] = set()  # slots whose episode the controller knows

    def run(self) -> Iterator[tuple[int, EpisodeResult]]:
        """Yields (index, result) of every episode as it ends; a free slot takes the next one."""
        upcoming = iter(range(len(self._episodes), self._plan.episodes))
        self._controller.reset(seeds=self._seeds)
        commands: dict[int, Command] = {place: self._begin(place, place) for place in list(self._episodes)}
        while self._episodes:
            self._slots.send(commands | self._actions(self._slots.busy | set(commands)))
            commands = {}
            for place, moment in self._slots.receive():
                index = self._take(place, moment)
                if moment.result is None:
                    continue
                following = next(upcoming, None)
                if following is not None:
                    commands[place] = self._begin(place, following)
                yield index, moment.result

    def speed(self) -> dict[str, float]:
        """Returns what `EvalResult.speed` says, until now."""
        seconds = max(1e-9, time.perf_counter() - self.begun)
        predicting = sum(self._controller.latencies_ms) / 1000
        return {"env_steps_per_second": self.env_steps / seconds, "policy_share": predicting / seconds}

    def _begin(self, place: int, index: int) -> Begin:
        self._episodes[place], self._seeds[place] = index, self._plan.seed + index
        return Begin(self._seeds[place], self._film is not None and self._film.wants(index))

    def _take(self, place: int, moment: Moment) -> int:
        """Returns the index of the episode that a moment belongs to; the slot is idle if it ended."""
        index = self._episodes[place]
        self._obs[place] = moment.obs
        if moment.length == 0:
            self._start(place, index)
        if self._film is not None and moment.picture is not None:
            self._film.add(index, moment.picture, seed=self._seeds[place], max_reward=moment.best)
        if moment.result is not None:
            del self._episodes[place]
            if self._film is not None and self._film.wants(index):
                self._film.finish(index, moment.result.success)
        return index

    def _start(self, place: int, index: int) -> None:
        """Lets an episode start from its seed; perhaps not for the first time, if it was cut short."""
        if place in self._moved:
            self._controller.reset(np.arange(len(self._obs)) == place, seeds=self._seeds)
            self._moved.discard(place)
        if self._film is not None:
            self._film.restart(index)

    def _actions(self, busy: Set[int]) -> dict[int, Array]:
        """Returns the actions of the slots to move now.

        Those with actions in their queue go on; the others wait, so that all predictions of a round fall into one
        call. In lock-step, episodes that end at different times would soon ask one by one, in padded batches.
        """
        free = np.array([place in self._episodes and place not in busy for place in range(len(self._obs))])
        active = free & (self._controller.queued > 0)
        if not active.any():
            if busy or not free.any():
                return {}
            active = free
        obs = {key: np.stack([seen[key] for seen in self._obs]) for key in self._controller.obs_spec}  # (E, *shape)
        predicted = active & (self._controller.queued == 0)
        actions = self._controller.act(obs, active=active)  # (E, *Da)
        self._overlay(np.flatnonzero(predicted))
        moved = [int(place) for place in np.flatnonzero(active)]
        self._moved.update(moved)
        self.env_steps += len(moved)
        return {place: actions[place] for place in moved}

    def _overlay(self, predicted: Array) -> None:
        """Lets the film sample what else the policy might have predicted for the episodes that it shows."""
        if self._film is None or self._film.overlay is None:
            return
        for place in map(int, predicted):
            index = self._episodes[place]
            if self._film.wants(index):
                window = {key: values[place] for key, values in self._controller.window.items()}
                self._film.overlay.predict(index, window, self._seeds[place])
