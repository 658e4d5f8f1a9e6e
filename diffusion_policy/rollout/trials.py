"""Trials on a real robot that a person judges: the same figures with intervals as an evaluation in simulation.

What ran is a recording of the library's own format, and the labels stand in it: the figures are made of it alone, so
that an interrupted series goes on where it stopped.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from diffusion_policy.control.planner import Planner
from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DiffusionPolicyError
from diffusion_policy.policies.chunk import FloatArray
from diffusion_policy.rollout.episode import EpisodeResult
from diffusion_policy.rollout.provenance import hardware
from diffusion_policy.rollout.result import EvalResult
from diffusion_policy.rollout.statistics import percentiles
from diffusion_policy.serving.recorder import Recorder
from diffusion_policy.versions import installed_versions

RECORDING = "trials.zarr"


class Robot(Protocol):
    """A driver. `reset`, `stop` and `close` are called where it has them: before and after each trial, at the end."""

    def read(self) -> Mapping[str, Any]:
        """Returns what the sensors show now, as the policy's schema says."""

    def send(self, action: FloatArray) -> None:
        """Moves the motors."""


class Person(Protocol):
    """Who sets the scene and judges."""

    def ask(self, question: str) -> str | None:
        """Returns an answer that was given after the question; None when nobody is there any more."""

    def has_spoken(self) -> bool:
        """Whether a line came since the last question, which it takes."""


class Terminal:
    """A person at a keyboard; lines typed before a question are no answer to it.

    Args:
        lines: where they type.
    """

    def __init__(self, lines: TextIO | None = None) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines or sys.stdin,), name="keyboard", daemon=True).start()

    def ask(self, question: str) -> str | None:
        """See `Person`."""
        self.has_spoken()
        print(question, end=" ", flush=True)
        line = self._lines.get()
        if line is None:
            self._lines.put(None)  # nobody comes back: later questions get no answer, either
        return line

    def has_spoken(self) -> bool:
        """See `Person`; the end of all lines stays for the next question."""
        spoken = False
        while not self._lines.empty():
            line = self._lines.get()
            if line is None:
                self._lines.put(None)
                return True
            spoken = True
        return spoken

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            self._lines.put(line.strip())
        self._lines.put(None)


@dataclass(frozen=True)
class Trials:
    """A series of trials.

    Args:
        count: how many.
        seconds: of one at most; Enter ends it before.
        seed: trial i uses seed + i for the policy's noise.
        out: a folder; the recording stands in it.
        about: what must be the same when the series goes on: the robot, the policy's file.
    """

    count: int
    seconds: float
    seed: int
    out: Path
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recording(self) -> Path:
        """Where the recording stands."""
        return self.out / RECORDING


def run_trials(
    trials: Trials,
    controller: TimedController,
    robot: Robot,
    person: Person,
    *,
    done: Callable[[EvalResult], object] = lambda result: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Runs the trials that are still to come; returns whether there are none left.

    A trial is recorded as a whole, with its label, or not at all: one that is repeated, or interrupted, leaves nothing.

    Args:
        trials: what to do.
        controller: what acts.
        robot: what it acts on.
        person: who judges; at the answer q, or when they are gone, the series stops.
        done: is told the figures after every trial.
        clock: the time in seconds.
        sleep: waits so many of them.

    Raises:
        ConfigError: what is recorded there is another series.
    """
    with ExitStack() as stack:
        stack.callback(getattr(robot, "close", lambda: None))
        recorder = stack.enter_context(_recorder(trials, controller))
        act = _Act(controller, robot, person, recorder, clock, sleep)
        while (number := recorder.buffer.num_episodes) < trials.count:
            said = person.ask(f"trial {number + 1} of {trials.count}: set the scene; Enter begins, q stops:")
            if said is None or said.lower().startswith("q"):
                return False
            try:
                act.run(trials.seconds, trials.seed + number)
            finally:
                getattr(robot, "stop", lambda: None)()
            label = _label(person)
            if label is None:
                return False
            if label != "r":
                recorder.end(label == "y")
                done(figures(trials, recorder.buffer, act.latencies_ms))
    return True


def figures(trials: Trials, buffer: ReplayBuffer, latencies_ms: list[float]) -> EvalResult:
    """Returns what a recording comes to; a success counts as a reward of 1.

    Args:
        trials: the series.
        buffer: its recording, of one trial at least.
        latencies_ms: from an observation to its plan, of those made in this session.
    """
    episodes = [_result(buffer, index, trials.seed + index) for index in range(buffer.num_episodes)]
    return EvalResult(
        env_id=f"robot:{trials.about.get('robot', 'unknown')}",
        env_kwargs={},
        seed=trials.seed,
        requested=trials.count,
        per_episode=episodes,
        latency_ms={**percentiles(latencies_ms), "batch_size": 1},
        policy=dict(trials.about.get("policy") or {"path": None, "sha256": None}),
        versions=installed_versions(),
        hardware=hardware(),
    )


def _result(buffer: ReplayBuffer, index: int, seed: int) -> EpisodeResult:
    success = bool(buffer.get_episode(index, ["success"])["success"][0])
    length = int(buffer.episode_slice(index).stop - buffer.episode_slice(index).start)
    return EpisodeResult(
        seed=seed, episode_return=float(success), max_reward=float(success), success=success, length=length,
        terminated=False, truncated=True,
    )  # fmt: skip


def _recorder(trials: Trials, controller: TimedController) -> Recorder:
    about = {**trials.about, "seed": trials.seed}
    if trials.recording.exists():
        with ReplayBuffer.open(trials.recording) as begun:
            before = begun.attrs.get("provenance") or {}
        for name, value in {**about, "step_s": controller.step_s}.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"{trials.recording} was begun with {name} {before.get(name)!r}, but got {value!r}; go on with the "
                    f"same, or choose another out="
                )
    return Recorder(trials.recording, controller, about)


@dataclass
class _Act:
    """Lets a controller act on a robot; `latencies_ms` are from an observation to its plan."""

    controller: TimedController
    robot: Robot
    person: Person
    recorder: Recorder
    clock: Callable[[], float]
    sleep: Callable[[float], object]
    latencies_ms: list[float] = field(default_factory=list)

    def run(self, seconds: float, seed: int) -> None:
        """Acts for so long, or until somebody speaks."""
        getattr(self.robot, "reset", lambda: None)()
        self.controller.reset(seed)
        self.recorder.drop()  # what a repeated trial left
        self.controller.observe(self.robot.read(), self.clock())
        self.controller.plan(self.clock())  # the robot stands still until it knows what to do
        begun, number = self.clock(), 0
        took: dict[float, float] = {}
        with Planner(self.controller, self.clock) as planner:
            while self.clock() < begun + seconds and not self.person.has_spoken():
                self._tick()
                if planner.error is not None:
                    raise planner.error
                plan = self.controller.newest_plan
                if plan is not None:
                    took[plan.start_s] = 1000 * (plan.ready_s - plan.start_s)
                number += 1
                self.sleep(max(0.0, begun + number * self.controller.step_s - self.clock()))
        self.latencies_ms += took.values()

    def _tick(self) -> None:
        now = self.clock()
        self.controller.observe(self.robot.read(), now)
        self.robot.send(self.controller.action_at(now))
        self.recorder.tick()


def _label(person: Person) -> str | None:
    """Returns y, n or r; None when they are gone."""
    question = "did it succeed? y yes, n no, r repeat it (this one does not count):"
    while (said := person.ask(question)) is not None:
        if said.lower()[:1] in ("y", "n", "r"):
            return said.lower()[0]
        if said.lower().startswith("q"):
            return None
    return None


def make_robot(name: str, settings: Mapping[str, Any]) -> Robot:
    """Returns a driver: `my_pkg.my_robot:Robot` is imported, and called with the settings.

    Raises:
        ConfigError: there is none of that name, or it has no read and send.
    """
    from importlib import import_module

    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"robot: expected a driver as my_pkg.my_robot:Robot, but got {name!r}")
    try:
        made: Robot = getattr(import_module(module), attribute)(**settings)
    except (ImportError, AttributeError, TypeError) as error:
        if isinstance(error, DiffusionPolicyError):
            raise
        raise ConfigError(f"robot={name} could not be made: {error}; is it installed or in this folder?") from error
    missing = [each for each in ("read", "send") if not callable(getattr(made, each, None))]
    if missing:
        raise ConfigError(f"robot={name} must have read() and send(action), but has no {', '.join(missing)}")
    return made
