"""Trials that a person judges: figures as an evaluation's, from a recording that goes on where it stopped."""

import time

import numpy as np
import pytest

from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.strategies import Ensembling
from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.statistics import wilson_rate
from diffusion_policy.rollout.trials import Trials, run_trials
from tests.control.clocks import Clock, Telling

STEP = 0.02


BEGIN = ""


class Robot:
    """Tells the time, and notes what happens to it."""

    def __init__(self):
        self.told, self.did = [], []

    def read(self):
        return {"now": np.array([time.monotonic()])}

    def send(self, action):
        self.told.append(action)

    def reset(self):
        self.did.append("reset")

    def stop(self):
        self.did.append("stop")

    def close(self):
        self.did.append("close")


class Person:
    """Answers from a list; None is gone. A trial ends after some ticks."""

    def __init__(self, robot, *answers, ticks=5):
        self._robot, self._answers, self._ticks = robot, list(answers), ticks
        self.questions, self.told = [], []

    def tell(self, what):
        self.told.append(what)

    def ask(self, question):
        self.questions.append(question)
        self._ends = len(self._robot.told) + self._ticks
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def has_spoken(self):
        return len(self._robot.told) >= self._ends


def trials(folder, count=3, **about):
    return Trials(count, 60.0, 100, folder, {"robot": "toy", "policy": {"path": "p", "sha256": "s"}, **about})


def run(wanted, *answers, robot=None, done=None, person=Person, policy=None, **settings):
    robot = robot or Robot()
    person, found = person(robot, *answers), []
    controller = TimedController(policy or Telling(), step_s=STEP, **settings)
    ended = run_trials(wanted, controller, robot, person, done=done or found.append)
    return ended, found, person


def test_a_series_gives_the_figures_of_an_evaluation(tmp_path):
    robot = Robot()
    ended, found, _ = run(trials(tmp_path), BEGIN, "y", BEGIN, "N", BEGIN, "what?", "yes", robot=robot)
    assert ended
    assert robot.did == ["reset", "stop"] * 3 + ["close"]
    result = found[-1]
    assert [each.success for each in result.per_episode] == [True, False, True]
    assert [each.seed for each in result.per_episode] == [100, 101, 102]
    assert [each.length for each in result.per_episode] == [5, 5, 5]
    assert result.success_rate == wilson_rate([True, False, True])
    said = result.to_dict()
    assert said["env_id"] == "robot:toy"
    assert said["policy"] == {"path": "p", "sha256": "s"}
    assert said["max_reward"]["mean"] == said["return"]["mean"] == pytest.approx(2 / 3)
    assert said["safety"] == {"stopped": 0, "stopped_seeds": []}
    with ReplayBuffer.open(tmp_path / "trials.zarr") as buffer:
        assert buffer.verify()
        assert buffer["labelled"].all()
        assert np.array_equal(buffer["action"], np.stack(robot.told))


class Slow(Telling):
    """Takes more time than its plans cover."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def predict(self, obs, noise):
        self.clock.sleep(10 * STEP)
        return super().predict(obs, noise)


def test_the_robot_waits_for_its_first_plan_begins_with_its_first_action_and_the_wait_is_told(tmp_path):
    robot, found, clock = Robot(), [], Clock(50.0)
    controller, person = TimedController(Slow(clock), step_s=STEP), Person(robot, BEGIN, "y", ticks=2)
    wanted = trials(tmp_path, 1)
    assert run_trials(wanted, controller, robot, person, done=found.append, clock=clock, sleep=clock.sleep)
    assert found[-1].latency_ms["p50"] == pytest.approx(1000 * 10 * STEP)
    with ReplayBuffer.open(tmp_path / "trials.zarr") as buffer:
        assert buffer["action"][:, 0].tolist() == buffer["plan"][0, :2, 0].tolist()
        assert not buffer["starved"].any()
        assert buffer["time_s"][0] == buffer["plan_start_s"][0] == 50.0 + 10 * STEP


def test_a_stop_is_told_counted_and_over_with_the_next_trial(tmp_path):
    class Blind(Robot):
        reads = 0

        def read(self):
            self.reads += 1
            return {"now": np.array([np.nan])} if self.reads == 4 else super().read()

    rules = {"safety": SafetyConfig(on_nan="stop"), "safe_action": np.zeros(1)}
    _, found, person = run(trials(tmp_path, 3), BEGIN, "n", BEGIN, "y", BEGIN, "y", robot=Blind(), **rules)
    assert person.told == ["safety stopped the robot: an observation was not finite; Enter ends this trial"]
    assert "safety stopped it (an observation was not finite)" in person.questions[1]
    assert all("safety" not in question for question in person.questions[2:])
    assert found[-1].to_dict()["safety"] == {"stopped": 1, "stopped_seeds": [100]}
    with ReplayBuffer.open(tmp_path / "trials.zarr") as buffer:
        assert buffer["stopped"][buffer.episode_slice(0)].any()
        assert not buffer["stopped"][5:].any()


def test_a_trial_without_any_action_is_not_judged(tmp_path):
    class Hasty(Person):
        hasty = (True, False, True, False)

        def ask(self, question):
            self.now, self.hasty = (self.hasty[0], self.hasty[1:]) if "trial" in question else (False, self.hasty)
            return super().ask(question)

        def has_spoken(self):
            return self.now or super().has_spoken()

    ended, found, person = run(trials(tmp_path, 2), BEGIN, BEGIN, "y", BEGIN, BEGIN, "n", person=Hasty)
    assert ended
    assert [each.success for each in found[-1].per_episode] == [True, False]
    assert len(person.told) == 2
    assert "before its first action" in person.told[0]


def test_figures_that_were_not_told_are_told_when_the_series_goes_on(tmp_path):
    def killed(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trials(tmp_path, 1), BEGIN, "y", done=killed)
    ended, found, person = run(trials(tmp_path, 1))
    assert ended
    assert person.questions == []
    assert [each.success for each in found[-1].per_episode] == [True]
    assert found[-1].latency_ms["p50"] > 0  # of the session before


def test_no_burst_of_actions_follows_a_robot_that_hung(tmp_path):
    class Hanging(Robot):
        def send(self, action):
            super().send(action)
            time.sleep(20 * STEP if len(self.told) == 2 else 0)

    run(trials(tmp_path, 1), BEGIN, "y", robot=Hanging(), safe_action=np.zeros(1))
    with ReplayBuffer.open(tmp_path / "trials.zarr") as buffer:
        apart = np.diff(buffer["time_s"])
    assert (apart > 20 * STEP).any()
    assert apart.min() > 0.4 * STEP


def test_rates_count_from_where_the_driver_leaves_the_robot(tmp_path):
    class Home(Robot):
        def reset(self):
            super().reset()
            return np.zeros(1)

    robot, rules = Home(), SafetyConfig(rate=1.0)
    run(trials(tmp_path, 2), BEGIN, "y", BEGIN, "y", robot=robot, safety=rules)
    assert [float(robot.told[each][0]) for each in (0, 5)] == pytest.approx([STEP, STEP])
    other = Robot()
    other.reset = lambda: {"now": 3}  # as an environment's would
    with pytest.raises(ConfigError, match="at must be"):
        run(trials(tmp_path / "other", 1), BEGIN, robot=other)


def test_a_trial_that_is_repeated_does_not_count(tmp_path):
    ended, found, person = run(trials(tmp_path, 1), BEGIN, "r", BEGIN, "n")
    assert ended
    assert found[-1].episodes == 1
    assert [question[:12] for question in person.questions[::2]] == ["trial 1 of 1", "trial 1 of 1"]


@pytest.mark.parametrize("stop", [("q",), (BEGIN, "q"), (), (BEGIN,)])
def test_a_series_that_stops_keeps_what_was_judged_and_goes_on(tmp_path, stop):
    ended, found, _ = run(trials(tmp_path), BEGIN, "y", *stop)
    assert not ended
    assert (found[-1].episodes, found[-1].requested) == (1, 3)
    ended, found, person = run(trials(tmp_path), BEGIN, "n", BEGIN, "y")
    assert ended
    assert person.questions[0].startswith("trial 2 of 3")
    assert [each.success for each in found[-1].per_episode] == [True, False, True]


@pytest.mark.parametrize("answers", [(KeyboardInterrupt(),), (BEGIN, KeyboardInterrupt())])
def test_ctrl_c_stops_the_robot_and_leaves_no_half_trial(tmp_path, answers):
    robot = Robot()
    with pytest.raises(KeyboardInterrupt):
        run(trials(tmp_path), BEGIN, "y", *answers, robot=robot)
    assert robot.did[-1] == "close"
    assert robot.did.count("stop") == robot.did.count("reset")
    with ReplayBuffer.open(tmp_path / "trials.zarr", "a") as buffer:
        assert buffer.episode_ends.tolist() == [5]


def test_ctrl_c_in_a_trial_stops_the_robot(tmp_path):
    robot = Robot()

    def send(action):
        raise KeyboardInterrupt

    robot.send = send
    with pytest.raises(KeyboardInterrupt):
        run(trials(tmp_path), BEGIN, robot=robot)
    assert robot.did == ["reset", "stop", "close"]


@pytest.mark.parametrize("other", [{"robot": "another"}, {"policy": {"path": "p", "sha256": "other"}}])
def test_another_robot_or_policy_cannot_go_on_with_a_series(tmp_path, other):
    run(trials(tmp_path), BEGIN, "y", "q")
    with pytest.raises(ConfigError, match="was begun with"):
        run(trials(tmp_path, **other), BEGIN, "y")


@pytest.mark.parametrize(
    ("other", "says"),
    [({"strategy": Ensembling(2)}, "strategy"), ({"safety": SafetyConfig(rate=1.0)}, "safety"),
     ({"safe_action": np.ones(1)}, "safe_action")],
)  # fmt: skip
def test_another_strategy_or_other_rules_cannot_go_on_with_a_series(tmp_path, other, says):
    same = {"strategy": Ensembling(3), "safety": SafetyConfig(observed={"now": (-np.inf, 1e99)})}
    run(trials(tmp_path), BEGIN, "y", "q", **same)
    run(trials(tmp_path), BEGIN, "y", "q", **same)
    with pytest.raises(ConfigError, match=f"was begun with {says} "):
        run(trials(tmp_path), BEGIN, "y", **{**same, **other})
