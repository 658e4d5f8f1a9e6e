"""Trials that a person judges: figures as an evaluation's, from a recording that goes on where it stopped."""

import io
import json
import sys
import time

import numpy as np
import pytest

from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.statistics import wilson_rate
from diffusion_policy.rollout.trials import Terminal, Trials, make_robot, run_trials
from tests.cli.running import dp
from tests.control.clocks import Telling
from tests.policies.test_diffusion_policy import make_policy

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
        self.questions = []

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


def run(wanted, *answers, robot=None, done=None):
    robot = robot or Robot()
    person, found = Person(robot, *answers), []
    controller = TimedController(Telling(), step_s=STEP)
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
    assert said["latency_ms"]["p50"] >= 0
    with ReplayBuffer.open(tmp_path / "trials.zarr") as buffer:
        assert buffer.verify()
        assert buffer["labelled"].all()
        assert np.array_equal(buffer["action"], np.stack(robot.told))


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


def test_lines_typed_before_a_question_are_no_answer_and_the_end_is_one(capsys):
    class Keyboard(io.StringIO):
        pass

    terminal = Terminal(Keyboard("early\n\n"))
    until = time.monotonic() + 30
    while terminal._lines.qsize() < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert terminal.ask("now?") is None
    assert terminal.ask("and now?") is None
    assert terminal.has_spoken()


DRIVER = """
import numpy as np
class Robot:
    def __init__(self, gain=1):
        self.sent = 0
    def read(self):
        return {"pos": np.zeros(2), "points": np.zeros((3, 2))}
    def send(self, action):
        self.sent += 1
class Half:
    def read(self):
        return {}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "toy_driver.py").write_text(DRIVER)
    monkeypatch.syspath_prepend(str(tmp_path))
    make_policy().save(tmp_path / "policy.pt")
    yield tmp_path
    sys.modules.pop("toy_driver", None)


def test_command_writes_what_dp_eval_writes_and_goes_on(place, monkeypatch, capsys):
    from diffusion_policy.rollout import trials as module

    words = ["checkpoint=policy.pt", "robot=toy_driver:Robot", "out=judged", "trials=2", "seconds=2"]
    words += ["safe_action=[100,100]"]  # this machine may be so busy that all of the first plan is past when it comes
    answers = iter([BEGIN, "y"])
    monkeypatch.setattr(module.Terminal, "__init__", lambda self: None)
    monkeypatch.setattr(module.Terminal, "has_spoken", lambda self: False)
    monkeypatch.setattr(module.Terminal, "ask", lambda self, question: next(answers, None))
    done = dp("record_eval", *words, folder=place, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 130, done.err
    assert json.loads((place / "judged/eval.json").read_text())["requested"] == 2
    again = dp("record_eval", *words, folder=place, monkeypatch=monkeypatch, capsys=capsys)
    assert (again.code, "go on with resume=true" in again.err) == (2, True)
    answers = iter([BEGIN, "n"])
    done = dp("record_eval", *words, "resume=true", folder=place, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 0
    found = json.loads((place / "judged/eval.json").read_text())
    assert [each["success"] for each in found["per_episode"]] == [True, False]
    assert found["success_rate"]["mean"] == 0.5
    assert len((place / "judged/episodes.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["robot=toy_driver:Robot", "out=judged", "seconds=0"], "seconds must be a positive number"),
        (["robot=toy_driver", "out=judged"], "expected a driver as my_pkg.my_robot:Robot"),
        (["robot=absent:Robot", "out=judged"], "could not be made"),
        (["robot=toy_driver:Half", "out=judged"], "has no send"),
        (["robot=toy_driver:Robot", "+robot_kwargs.gian=1", "out=judged"], "could not be made"),
        (["out=judged"], "robot: expected a value"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(place, monkeypatch, capsys, words, said):
    done = dp("record_eval", "checkpoint=policy.pt", *words, folder=place, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (place / "judged").exists()


def test_an_error_of_the_driver_itself_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        make_robot("tests.rollout.broken_driver:Broken", {})
