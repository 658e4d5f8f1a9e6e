"""What a robot does at a tick, by what it was answered and told: no network here."""

import numpy as np
import pytest

from diffusion_policy_client.conduct import Conduct
from diffusion_policy_client.errors import MismatchError
from diffusion_policy_client.protocol import MOST_SAID
from diffusion_policy_client.records import RemoteCounts
from tests.client.robots import WELCOME, answer, told
from tests.control.clocks import STEP


def acted(robot, now_s, coming=(1.0, 2.0, 3.0, 4.0)):
    robot.question(now_s)
    robot.answered(answer(now_s), now_s)
    robot.told(told(now_s, coming))


def conduct(goes_on=True, **settings):
    given = {"lost_s": 0.5, "on_lost": "hold", "goes_on": goes_on, **settings}
    return Conduct({**WELCOME, **given.pop("welcome", {})}, RemoteCounts(), **given)


def test_a_stop_that_the_server_says_late_is_one():
    robot = conduct()
    acted(robot, 1.0)
    robot.question(1.1)
    assert robot.unanswered(1.1, connected=True).ahead
    robot.late(answer(1.1, stopped="a wall"))
    said = robot.unanswered(1.2, connected=True)
    assert (said.stopped, said.held, said.action) == ("a wall", True, 3.0)  # the safe action


@pytest.mark.parametrize(
    ("time_s", "expected"),
    [
        (0.9, None), (1.0, 1.0), (1.05, 1.0), (1.0999, 2.0), (1.1, 2.0), (1.199, 2.0), (1.3, 4.0), (1.39, 4.0),
        (1.41, None),
    ],
)  # fmt: skip
def test_each_action_is_for_its_own_time_and_none_is_for_later(time_s, expected):
    robot = conduct()
    acted(robot, 1.0)
    found = robot._foreseen(time_s)
    assert (found is None) == (expected is None)
    assert found is None or found == expected


def test_what_was_said_longer_ago_than_a_robot_may_be_lost_is_over():
    robot = conduct(lost_s=0.25, on_lost="stop")
    acted(robot, 1.0)
    said = [robot.unanswered(1.0 + number * STEP, connected=True) for number in range(1, 4)]
    assert [(tick.ahead, tick.action[0]) for tick in said] == [(True, 2.0), (True, 3.0), (False, 3.0)]
    assert "did not answer for 0.3 s" in said[-1].stopped


@pytest.mark.parametrize("coming", [None, (1.0, 2.0, 3.0, 4.0)])
def test_late_answers_keep_a_robot_from_being_lost_whether_they_tell_more_or_not(coming):
    robot = conduct(lost_s=0.25, on_lost="stop")
    robot.begin(np.zeros(1, np.float32), moved=False)
    for number in range(20):
        now = 1.0 + number * STEP
        robot.question(now)
        assert robot.unanswered(now, connected=True).ahead == (coming is not None and number > 0)
        robot.late(answer(now))
        robot.told(told(now, coming))
    assert robot.stopped is None
    for number in range(20, 24):
        robot.question(1.0 + number * STEP)
        robot.unanswered(1.0 + number * STEP, connected=True)
    assert "did not answer for 0.3 s" in robot.stopped


def test_a_pause_of_the_robots_loop_is_no_silence_whatever_came_before_it():
    robot = conduct(lost_s=0.25, on_lost="stop")
    for now in (1.0, 1.1):
        robot.question(now)
        robot.unanswered(now, connected=True)
        robot.late(answer(now))
        robot.told(told(now))
    stopped = []
    for now in (60.0, 60.1, 60.2):
        robot.question(now)
        stopped.append(robot.unanswered(now, connected=True).stopped)
    assert stopped[:2] == [None, None]
    assert "did not answer for 0.3 s" in stopped[2]
    slow = conduct(lost_s=0.5, on_lost="stop")  # a loop of half the rate does not pause
    slow.begin(np.zeros(1, np.float32), moved=False)
    for now in (1.0, 1.2, 1.4):
        slow.question(now)
        assert slow.unanswered(now, connected=True).stopped is None
    slow.question(1.6)
    assert "did not answer for 0.6 s" in slow.unanswered(1.6, connected=True).stopped


@pytest.mark.parametrize(
    ("more", "stays"),
    [
        ({}, True), ({"plan_start_s": 1.05}, False), ({"starved": True}, False), ({"failed": "CUDA"}, False),
        ({"stopped": "a wall"}, False), ({"action": np.array([1.5])}, False),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_what_was_told_before_is_over_where_an_answer_says_otherwise_though_nothing_more_arrives(more, stays, late):
    robot = conduct()
    acted(robot, 1.0)
    robot.question(1.1)
    said = answer(1.1, **{"action": np.array([2.0]), **more})
    if late:
        assert robot.unanswered(1.1, connected=True).action == 2.0
        robot.late(said)
    else:
        robot.answered(said, 1.1)
    assert robot.knows(1.2) == stays


def test_what_was_told_behind_an_answer_stays_though_the_answer_is_taken_later():
    robot = conduct()
    robot.question(1.0)
    robot.told(told(1.0, (5.0, 6.0)))  # read by another thread meanwhile
    robot.answered(answer(1.0), 1.0)
    assert robot.knows(1.1)


def test_that_nothing_comes_next_ends_what_was_told_before():
    robot = conduct()
    acted(robot, 1.0)
    assert robot.knows(1.1)
    robot.told(told(1.0, None))
    assert not robot.knows(1.1)


def test_another_server_knows_nothing_of_what_the_one_before_said():
    robot = conduct()
    acted(robot, 1.0)
    assert robot.knows(1.1)
    robot.meet(WELCOME)
    assert not robot.knows(1.1)


@pytest.mark.parametrize(
    "more",
    [
        {"next": np.zeros((MOST_SAID + 1, 1))}, {"next": np.zeros((0, 1))}, {"next": np.zeros((2, 2))},
        {"next": np.array([[np.nan]])}, {"next": "up"}, {"next": 5}, {"next": [[1], [2, 3]]}, {"next_s": None},
        {"next_s": "now"}, {"time_s": None}, {"time_s": 1.1}, {"time_s": float("nan")},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_not_what_comes_next_ends_the_connection(more):
    robot = conduct()
    robot.question(1.0)
    with pytest.raises(MismatchError, match="something else than what is next"):
        robot.told(told(1.0, **more))
    assert not robot.knows(1.05)


@pytest.mark.parametrize(
    "more",
    [
        {"time_s": None}, {"time_s": 1.1}, {"time_s": float("nan")}, {"stopped": np.zeros(2)}, {"stopped": 0},
        {"failed": False}, {"slow": b"x"},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_action_ends_the_connection_late_or_not(more):
    robot = conduct()
    robot.question(1.0)
    with pytest.raises(MismatchError, match="something else than an action"):
        robot.late(answer(1.0, **more))
    if "time_s" not in more:  # the robot knows it
        with pytest.raises(MismatchError, match="something else than an action"):
            robot.answered(answer(1.0, **more), 1.0)


@pytest.mark.parametrize("kind", ["absolute", "delta"])
def test_whatever_is_said_and_whenever_it_is_asked_for_rules_are_kept(kind):
    chance = np.random.default_rng(0)
    limits = {"low": np.full(1, -1.0), "high": np.full(1, 1.0), "rate": np.full(1, 2.0), "elapsed_s": 2 * STEP}
    welcome = {"limits": limits, "action": {**WELCOME["action"], "kind": kind}, "safe_action": None}
    robot = conduct(welcome=welcome, lost_s=1.0)
    robot.begin(np.zeros(1, np.float32), moved=False)
    robot.question(0.0)
    robot.answered(answer(0.0, action=np.zeros(1)), 0.0)
    last, last_s = np.zeros(1), 0.0
    for _ in range(3000):
        now = last_s + chance.uniform(0.1, 4) * STEP
        robot.question(now)
        if chance.random() < 0.5:
            robot.told(told(now - STEP, chance.normal(size=3) * 3))
        tick = robot.unanswered(now, connected=True)
        sent = tick.action
        assert abs(sent) <= 1.0
        assert (kind == "delta" and tick.held) or abs(sent - last) <= 2.0 * min(now - last_s, 2 * STEP) + 1e-6
        last, last_s = sent, now
    assert robot._counts.ahead > 500
