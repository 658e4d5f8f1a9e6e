"""dp-record-eval: who answers, a robot's driver, and what the command leaves."""

import io
import json
import sys
import time

import pytest

from diffusion_policy.policies.library import load_policy
from diffusion_policy.rollout.driver import make_robot
from diffusion_policy.rollout.person import Piped, Terminal, who_answers
from diffusion_policy.rollout.provenance import policy_facts
from tests.cli.running import dp
from tests.policies.test_diffusion_policy import make_policy


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


def test_answers_from_a_pipe_are_taken_one_a_line_whenever_they_were_written(capsys):
    person = who_answers(io.StringIO("\n  y \nq\n"))
    assert isinstance(person, Piped)
    assert [person.ask("now?"), person.has_spoken(), person.ask("good?"), person.ask("and now?")] == [
        "",
        False,
        "y",
        "q",
    ]
    assert capsys.readouterr().err == ""
    assert person.ask("trial 3?") is None
    assert "the answers ran out: nobody answers 'trial 3?'" in capsys.readouterr().err


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
    words = ["checkpoint=policy.pt", "robot=toy_driver:Robot", "out=judged", "trials=2", "seconds=1"]
    words += ["safe_action=[100,100]"]  # this machine may be so busy that all of the first plan is past when it comes

    def judged(answers, *more):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        return dp("record_eval", *words, *more, folder=place, monkeypatch=monkeypatch, capsys=capsys)

    done = judged("\ny\n")
    assert done.code == 130, done.err
    assert "the answers ran out: nobody answers 'trial 2 of 2" in done.err
    said = json.loads((place / "judged/eval.json").read_text())
    assert said["requested"] == 2
    policy = load_policy(place / "policy.pt")
    assert said["policy"]["sampling"] == json.loads(json.dumps(policy_facts(policy, None)["sampling"]))
    assert said["policy"].keys() == policy_facts(policy, None).keys()
    again = judged("")
    assert (again.code, "go on with resume=true" in again.err) == (2, True)
    for other in ("delay=2", "+robot_kwargs.gain=2", "seconds=3"):
        done = judged("", "resume=true", other)
        assert (done.code, "was begun with" in done.err) == (2, True)
    done = judged("\nn\n", "resume=true")
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
