"""Trials on a real robot that a person judges: the same figures with intervals as an evaluation in simulation.

What ran is a recording of the library's own format, and the labels stand in it: the figures are made of it alone, so
that an interrupted series goes on where it stopped.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from diffusion_policy.control.pace import paced
from diffusion_policy.control.planner import Planner
from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.driver import Robot
from diffusion_policy.rollout.episode import EpisodeResult
from diffusion_policy.rollout.person import Person
from diffusion_policy.rollout.provenance import hardware
from diffusion_policy.rollout.result import EvalResult
from diffusion_policy.rollout.statistics import percentiles
from diffusion_policy.serving.recorder import Recorder
from diffusion_policy.settings import plain
from diffusion_policy.versions import installed_versions

RECORDING = "trials.zarr"
_LATENCIES = "latencies_ms"


@dataclass(frozen=True)
class Trials:
    """A series of trials.

    Args:
        count: how many.
        seconds: of one at most; Enter ends it before.
        seed: trial i uses seed + i for the policy's noise.
        out: a folder; the recording stands in it.
        about: what must be the same when the series goes on: the robot, its settings, the policy's file. That the
            strategy, the rules of safety and `seconds` are the same is seen to here.
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

    A trial is recorded as a whole, with its label, or not at all: one that is repeated, or interrupted, leaves nothing,
    and one that was ended before its first action is not judged. Where safety stops the robot the person is told why;
    beginning the next trial releases it.

    Args:
        trials: what to do.
        controller: what acts.
        robot: what it acts on.
        person: who judges; at the answer q, or when they are gone, the series stops.
        done: is told the figures after every trial, and at once where there are trials from before.
        clock: the time in seconds.
        sleep: waits so many of them.

    Raises:
        ConfigError: what is recorded there is another series.
    """
    with ExitStack() as stack:
        stack.callback(getattr(robot, "close", lambda: None))
        recorder = stack.enter_context(_recorder(trials, controller))
        act = _Act(controller, robot, person, recorder, clock, sleep)
        if recorder.buffer.num_episodes:  # whoever was killed before may not have told them
            done(figures(trials, recorder.buffer))
        while (number := recorder.buffer.num_episodes) < trials.count:
            said = person.ask(f"trial {number + 1} of {trials.count}: set the scene; Enter begins, q stops:")
            if said is None or said.lower().startswith("q"):
                return False
            try:
                took = act.run(trials.seconds, trials.seed + number)
            finally:
                getattr(robot, "stop", lambda: None)()
            if not len(recorder):
                person.tell("this trial ended before its first action, and does not count; it is to come again")
                continue
            label = _label(person, controller.guard.stopped)
            if label is None:
                return False
            if label != "r":
                _keep_latencies(recorder.buffer, number, took)
                recorder.end(label == "y")
                done(figures(trials, recorder.buffer))
    return True


def figures(trials: Trials, buffer: ReplayBuffer) -> EvalResult:
    """Returns what a recording comes to; a success counts as a reward of 1.

    Args:
        trials: the series.
        buffer: its recording, of one trial at least.
    """
    numbers = range(buffer.num_episodes)
    stopped = [trials.seed + each for each in numbers if buffer.get_episode(each, ["stopped"])["stopped"].any()]
    kept = buffer.attrs.get(_LATENCIES) or {}
    return EvalResult(
        env_id=f"robot:{trials.about.get('robot', 'unknown')}",
        env_kwargs={},
        seed=trials.seed,
        requested=trials.count,
        per_episode=[_result(buffer, index, trials.seed + index) for index in numbers],
        latency_ms={**percentiles(ms for index in numbers for ms in kept.get(str(index), ())), "batch_size": 1},
        policy=dict(trials.about.get("policy") or {"path": None, "sha256": None}),
        versions=installed_versions(),
        hardware=hardware(),
        safety={"stopped": len(stopped), "stopped_seeds": stopped},
    )


def _keep_latencies(buffer: ReplayBuffer, number: int, took_ms: list[float]) -> None:
    """Keeps how long the plans of a trial took; of one that comes to nothing after all, the next one's replace them."""
    kept = dict(buffer.attrs.get(_LATENCIES) or {})
    buffer.update_attrs({_LATENCIES: {**kept, str(number): [round(ms, 3) for ms in took_ms]}})


def _result(buffer: ReplayBuffer, index: int, seed: int) -> EpisodeResult:
    success = bool(buffer.get_episode(index, ["success"])["success"][0])
    length = int(buffer.episode_slice(index).stop - buffer.episode_slice(index).start)
    return EpisodeResult(
        seed=seed, episode_return=float(success), max_reward=float(success), success=success, length=length,
        terminated=False, truncated=True,
    )  # fmt: skip


def _recorder(trials: Trials, controller: TimedController) -> Recorder:
    strategy, safe = controller.strategy, controller.safe_action
    about = _kept({
        **trials.about,
        "seed": trials.seed,
        "seconds": trials.seconds,
        "strategy": {"name": type(strategy).__name__, **(plain(strategy) if is_dataclass(strategy) else {})},
        "safety": controller.guard.config,
        "safe_action": None if safe is None else safe.tolist(),
    })  # fmt: skip
    if trials.recording.exists():
        with ReplayBuffer.open(trials.recording) as begun:
            before = begun.attrs.get("provenance") or {}
        for name, value in {**about, "step_s": controller.step_s}.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"{trials.recording} was begun with {name} {before.get(name)!r}, but got {value!r}; go on with the "
                    f"same, or choose another out="
                )
    return Recorder(trials.recording, controller, about, keep_unfinished=False)


def _kept(value: Any) -> Any:
    """Returns plain values as JSON gives them back; what it does not know, infinity among it, as text."""
    said = json.dumps(plain(value), default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each))
    return json.loads(said, parse_constant=str)


@dataclass
class _Act:
    """Lets a controller act on a robot."""

    controller: TimedController
    robot: Robot
    person: Person
    recorder: Recorder
    clock: Callable[[], float]
    sleep: Callable[[float], object]

    def run(self, seconds: float, seed: int) -> list[float]:
        """Acts for so long, or until somebody speaks; returns the milliseconds from observations to their plans."""
        self._begin(seed)
        self.controller.observe(self.robot.read(), self.clock())
        self.controller.plan(self.clock(), self.clock)  # the robot stands still until it knows what to do
        begun, stopped = self.clock(), False
        took: dict[float, float] = {}
        with Planner(self.controller, self.clock) as planner:
            for now in paced(self.controller.step_s, self.clock, self.sleep):
                if now >= begun + seconds or self.person.has_spoken():
                    break
                self._tick(now)
                if planner.error is not None:
                    raise planner.error
                plan, why = self.controller.newest_plan, self.controller.guard.stopped
                if plan is not None:
                    took[plan.observed_s] = 1000 * (plan.ready_s - plan.observed_s)
                if why is not None and not stopped:
                    self.person.tell(f"safety stopped the robot: {why}; Enter ends this trial")
                stopped = why is not None
        return list(took.values())

    def _begin(self, seed: int) -> None:
        """Makes all ready; a stop of the trial before is over, since somebody began this one."""
        reset = getattr(self.robot, "reset", None)
        here = None if reset is None else reset()
        self.controller.guard.release()
        self.controller.reset(seed, here, moved=reset is not None)
        self.recorder.drop()  # what a repeated trial left

    def _tick(self, now: float) -> None:
        self.controller.observe(self.robot.read(), now)
        self.robot.send(self.controller.action_at(now))
        self.recorder.tick()


def _label(person: Person, stopped: str | None) -> str | None:
    """Returns y, n or r; None when they are gone."""
    question = "did it succeed? y yes, n no, r repeat it (this one does not count):"
    question = question if stopped is None else f"safety stopped it ({stopped}); {question}"
    while (said := person.ask(question)) is not None:
        if said.lower()[:1] in ("y", "n", "r"):
            return said.lower()[0]
        if said.lower().startswith("q"):
            return None
    return None
