"""Episodes side by side: which one runs in which slot, what it saw last, and what is to happen next.

Letters: E slots.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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
            self._slots.send(commands | self._chunks(self._slots.busy | set(commands)))
            commands = {}
            going: dict[int, Sequence[Moment]] = {}
            for place, moments in self._slots.receive():
                index, result = self._take(place, moments), moments[-1].result
                if result is None:
                    going[place] = moments
                    continue
                following = next(upcoming, None)
                if following is not None:
                    commands[place] = self._begin(place, following)
                yield index, result
            self._catch_up(going)

    @property
    def latencies_ms(self) -> Iterable[float]:
        """What each call of the policy took."""
        return self._controller.latencies_ms

    @property
    def behaviors(self) -> tuple[str, ...]:
        """The ways that the environment knows; see `EnvFacts`."""
        return self._slots.facts.behaviors

    def speed(self) -> dict[str, float]:
        """Returns what `EvalResult.speed` says, until now."""
        seconds = max(1e-9, time.perf_counter() - self.begun)
        predicting = sum(self._controller.latencies_ms) / 1000
        return {"env_steps_per_second": self.env_steps / seconds, "policy_share": predicting / seconds}

    def _begin(self, place: int, index: int) -> Begin:
        self._episodes[place], self._seeds[place] = index, self._plan.seed + index
        return Begin(self._seeds[place], self._film is not None and self._film.wants(index))

    def _take(self, place: int, moments: Sequence[Moment]) -> int:
        """Returns the index of the episode that moments belong to; the slot is idle if it ended."""
        index, result = self._episodes[place], moments[-1].result
        if moments[0].length == 0:
            self._start(place, index)
        else:
            self.env_steps += len(moments)
        for moment in moments:
            if self._film is not None and moment.picture is not None:
                self._film.add(index, moment.picture, seed=self._seeds[place], max_reward=moment.best)
        self._obs[place] = moments[-1].obs
        if result is not None:
            del self._episodes[place]
            if self._film is not None and self._film.wants(index):
                self._film.finish(index, result.success)
        return index

    def _catch_up(self, going: Mapping[int, Sequence[Moment]]) -> None:
        """Lets the controller live through what happened while slots executed their chunks.

        It sees every observation but the latest and gives the action that was sent, as it would step by step.
        """
        latest = dict(enumerate(self._obs))
        for step in range(max((len(moments) for moments in going.values()), default=0)):
            seen = {place: moments[step].obs for place, moments in going.items() if step < len(moments) - 1}
            if seen:
                self._act(latest | seen, list(seen))

    def _start(self, place: int, index: int) -> None:
        """Lets an episode start from its seed; perhaps not for the first time, if it was cut short."""
        if place in self._moved:
            self._controller.reset(np.arange(len(self._obs)) == place, seeds=self._seeds)
            self._moved.discard(place)
        if self._film is not None:
            self._film.restart(index)

    def _chunks(self, busy: Set[int]) -> dict[int, Array]:
        """Returns the actions (Ta, *Da) of the slots to move now.

        Slots that wait are predicted in full batches while others work, so that policy and environments overlap; in a
        batch that is not full when nobody works any more. Each on its own, they would soon ask one by one, in padded
        batches.
        """
        if not all(self._obs):  # somebody's first observation is still to come
            return {}
        ready = [place for place in sorted(self._episodes) if place not in busy]
        if busy:
            size = self._controller.batch_size or len(self._obs)
            ready = ready[: len(ready) // size * size]
        if not ready:
            return {}
        first = self._act(dict(enumerate(self._obs)), ready)
        self._overlay(ready)
        self._moved.update(ready)
        return {place: np.concatenate([first[place][None], self._controller.upcoming(place)]) for place in ready}

    def _act(self, seen: Mapping[int, dict[str, Any]], places: list[int]) -> Array:
        """Returns (E, *Da), what the controller does in some slots about what is seen in all of them."""
        obs = {key: np.stack([seen[place][key] for place in sorted(seen)]) for key in self._controller.obs_spec}
        return self._controller.act(obs, active=np.isin(np.arange(len(seen)), places))

    def _overlay(self, predicted: Sequence[int]) -> None:
        """Lets the film sample what else the policy might have predicted for the episodes that it shows."""
        if self._film is None or self._film.overlay is None:
            return
        for place in predicted:
            index = self._episodes[place]
            if self._film.wants(index):
                window = {key: values[place] for key, values in self._controller.window.items()}
                self._film.overlay.predict(index, window, self._seeds[place])
