"""Episodes in which planning takes time: one clock tick is one env step, plans arrive some ticks after they are due.

The same `TimedController` that runs on a robot runs here, one for each slot; only the clock is simulated.

Letters: E slots.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffusion_policy.control.plan import PlanRequest, answers
from diffusion_policy.control.timed import TimedController
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray
from diffusion_policy.rollout.episode import Begin, Command, EpisodeResult, Moment
from diffusion_policy.rollout.rollouts import Plan
from diffusion_policy.rollout.slots import Slots
from diffusion_policy.rollout.timing import Smoothness, Timing

_STEP_S = 1.0  # one env step: what a second is does not matter here


@dataclass
class _Episode:
    """An episode that runs in a slot.

    Args:
        index: its number in the evaluation.
        controller: what decides in it.
        delays: chance of its delays.
        tick: env steps done.
        sent: actions so far.
        joints: numbers of actions at which another plan came into force.
        starved: numbers of actions that no plan had.
        pending: the plan that is being computed: when it arrives, its question and its answer.
    """

    index: int
    controller: TimedController
    delays: np.random.Generator
    tick: int = 0
    sent: list[FloatArray] = field(default_factory=list)
    joints: list[int] = field(default_factory=list)
    starved: list[int] = field(default_factory=list)
    pending: tuple[int, PlanRequest, FloatArray] | None = None


class TimedRollouts:
    """As `Rollouts`, for a policy whose plans take time; one action at a time, all slots in step.

    Args:
        policy: what plans.
        slots: the environments.
        size: E.
        plan: which episodes.
        film: collects the first episodes.
        timing: how long plans take, and how they follow each other.
        batch_size: rows of every policy call.

    Attributes:
        timing: as given.
        smoothness: of every episode that ended, by index.
        latencies_ms: of the policy's calls.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        slots: Slots,
        size: int,
        plan: Plan,
        film: VideoGrid | None,
        timing: Timing,
        batch_size: int,
    ) -> None:
        self.begun, self.env_steps = time.perf_counter(), 0
        self.smoothness: dict[int, Smoothness] = {}
        self.latencies_ms: list[float] = []
        self._policy, self._slots, self._plan, self._film = policy, slots, plan, film
        self.timing, self._batch_size = timing, batch_size
        self._running: dict[int, _Episode] = {}
        self._size = size

    def run(self) -> Iterator[tuple[int, EpisodeResult]]:
        """Yields (index, result) of every episode as it ends; a free slot takes the next one."""
        upcoming = iter(range(self._plan.episodes))
        commands: dict[int, Command] = {place: self._begin(place, next(upcoming)) for place in range(self._size)}
        while commands:
            self._slots.send(commands)
            commands = {}
            while self._slots.busy:
                for place, moments in self._slots.receive():
                    self._take(place, moments)
                    result = moments[-1].result
                    if result is None:
                        continue
                    yield self._finished(place, result)
                    following = next(upcoming, None)
                    if following is not None:
                        commands[place] = self._begin(place, following)
            waiting = [place for place in sorted(self._running) if place not in commands]
            commands |= self._actions(waiting)

    @property
    def behaviors(self) -> tuple[str, ...]:
        """The ways that the environment knows; see `EnvFacts`."""
        return self._slots.facts.behaviors

    def speed(self) -> dict[str, float]:
        """Returns what `EvalResult.speed` says, until now."""
        seconds = max(1e-9, time.perf_counter() - self.begun)
        share = sum(self.latencies_ms) / 1000 / seconds
        return {"env_steps_per_second": self.env_steps / seconds, "policy_share": share}

    def _begin(self, place: int, index: int) -> Begin:
        self._running[place] = self._new(index)
        return Begin(self._plan.seed + index, self._film is not None and self._film.wants(index))

    def _new(self, index: int) -> _Episode:
        seed = self._plan.seed + index
        controller = TimedController(self._policy, step_s=_STEP_S, strategy=self.timing.strategy, seed=seed)
        return _Episode(index, controller, self.timing.delays(seed))

    def _take(self, place: int, moments: Sequence[Moment]) -> None:
        """Lets a slot's episode see what happened; it begins again if its environment had to."""
        episode = self._running[place]
        if moments[0].length == 0:
            episode = self._running[place] = self._new(episode.index)
            if self._film is not None:
                self._film.restart(episode.index)
        else:
            self.env_steps += len(moments)
        for moment in moments:
            if self._film is not None and moment.picture is not None:
                seed = self._plan.seed + episode.index
                self._film.add(episode.index, moment.picture, seed=seed, max_reward=moment.best)
        episode.tick = moments[-1].length
        episode.controller.observe(moments[-1].obs, episode.tick * _STEP_S)

    def _finished(self, place: int, result: EpisodeResult) -> tuple[int, EpisodeResult]:
        episode = self._running.pop(place)
        self.smoothness[episode.index] = Smoothness.of(episode.sent, episode.joints, episode.starved)
        if self._film is not None and self._film.wants(episode.index):
            self._film.finish(episode.index, result.success)
        return episode.index, result

    def _actions(self, places: Sequence[int]) -> dict[int, Command]:
        """Returns one action (1, *Da) for each slot, after asking for plans and taking those that arrive now."""
        episodes = {place: self._running[place] for place in places}
        for episode in episodes.values():
            _arrive(episode)  # and the computer is free for the next question, at this very tick
        self._ask(list(episodes.values()))
        commands: dict[int, Command] = {}
        for place, episode in episodes.items():
            _arrive(episode)  # what takes no time
            tick = episode.controller.tick(episode.tick * _STEP_S)
            if tick.starved:
                episode.starved.append(len(episode.sent))
            episode.sent.append(tick.action)
            commands[place] = tick.action[None]
        return commands

    def _ask(self, episodes: Sequence[_Episode]) -> None:
        """Asks for the plans that are due, and computes them at once; they are kept until they arrive.

        The first plan of an episode is waited for, as a robot's would be before it moves.
        """
        free = [each for each in episodes if each.pending is None]
        questions = [(each, each.controller.request_if_due(each.tick * _STEP_S)) for each in free]
        asked = [(each, request) for each, request in questions if request is not None]
        for guided in (False, True):
            some = [(each, request) for each, request in asked if (request.known is not None) == guided]
            if not some:
                continue
            begun = time.perf_counter()
            found = answers(self._policy, [request for _, request in some], self._batch_size)
            self.latencies_ms.append(1000 * (time.perf_counter() - begun))
            for (each, request), answer in zip(some, found, strict=True):
                wait = self.timing.delay(each.delays) if each.sent else 0
                each.pending = (each.tick + wait, request, answer)


def _arrive(episode: _Episode) -> None:
    """Hands an episode's plan over, if it arrives now."""
    if episode.pending is None or episode.pending[0] > episode.tick:
        return
    _, request, answer = episode.pending
    accepted = episode.controller.counts.accepted
    episode.controller.accept(request, answer, episode.tick * _STEP_S)
    if episode.controller.counts.accepted > accepted and episode.sent:
        episode.joints.append(len(episode.sent))
    episode.pending = None
