"""What the server said before that would come: the robot goes on by it where an answer is late, and only then."""

import threading
import time

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy_client import RemoteController
from diffusion_policy_client.conduct import Conduct
from diffusion_policy_client.errors import MismatchError, ServerLostError
from diffusion_policy_client.protocol import MOST_SAID
from diffusion_policy_client.records import RemoteCounts
from tests.client.robots import WELCOME, Hung, Saying, action, ahead, remote, until
from tests.control.clocks import STEP, Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer


def planned(controller):
    """Makes the plan of 1.0, whose actions are their times until 1.6."""
    controller.observe(seen(1.0), 1.0)
    controller.plan(1.0)
    assert controller.action_at(1.0) == pytest.approx(1.0)


def answer(now_s, **more):
    said = {"action": np.array([1.0]), "observed_s": 0.5, "plan_start_s": 0.6}
    return action({"id": 1, "time_s": now_s}, **{**said, **more})


def told(now_s, coming=(1.0, 2.0, 3.0, 4.0), **more):
    return ahead({"id": 1, "time_s": now_s}, coming, **{"observed_s": 0.5, "plan_start_s": 0.6, **more})


def acted(robot, now_s, coming=(1.0, 2.0, 3.0, 4.0)):
    robot.question(now_s)
    robot.answered(answer(now_s), now_s)
    robot.told(told(now_s, coming))


def conduct(goes_on=True, **settings):
    given = {"lost_s": 0.5, "on_lost": "hold", "goes_on": goes_on, **settings}
    return Conduct({**WELCOME, **given.pop("welcome", {})}, RemoteCounts(), **given)


def test_a_server_that_hangs_stops_no_robot_for_as_long_as_it_said_what_comes():
    with Running(offer(Telling())) as running, remote(running, prompt_s=PATIENCE_S) as controller:
        planned(controller)
        with Hung(running):
            controller._patience_s = 0.02
            said = [controller.tick(1.0 + number * STEP) for number in range(1, 8)]
        assert [tick.action[0] for tick in said] == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.4, 1.4, 1.4])
        assert [tick.ahead for tick in said] == [True] * 4 + [False] * 3  # then it was lost for half a second
        assert [tick.held for tick in said] == [False] * 4 + [True] * 3
        assert (said[0].observed_s, said[0].plan_start_s, said[0].starved) == (1.0, 1.0, False)
        assert (controller.counts.ahead, controller.counts.held, controller.counts.lost) == (4, 3, 0)


def test_over_a_link_slower_than_half_a_step_the_robot_does_as_over_a_fast_one():
    def answers(message):
        time.sleep(0.05)
        here = message["time_s"]
        return [action(message, action=np.array([here])), ahead(message, here + STEP * np.arange(4))]

    welcome = {**WELCOME, "safe_action": None}
    with Saying(answers, [welcome]) as url, RemoteController(url, patience_s=0.02, prompt_s=0.001) as controller:
        controller._lost_s = PATIENCE_S
        assert controller.action_at(0.0) == 0.0  # for which the robot stands still
        said = []
        for number in range(1, 16):
            said.append(controller.tick(number * STEP))
            time.sleep(0.06)
        assert [tick.action[0] for tick in said] == pytest.approx([number * STEP for number in range(1, 16)])
        assert (controller.counts.answered, controller.counts.ahead, controller.counts.held) == (1, 15, 0)
        assert controller.counts.late >= 10


def test_what_comes_behind_an_answer_delays_no_tick_and_is_no_late_answer():
    def answers(message):
        return [action(message), ahead(message, (9.0, 5.0))]

    with Saying(answers) as url, RemoteController(url, patience_s=PATIENCE_S) as controller:
        assert [controller.action_at(number * STEP) for number in range(9)] == [9.0] * 9
        assert (controller.counts.answered, controller.counts.late) == (9, 0)


def test_rates_count_from_what_was_sent_of_it_on_both_sides():
    rules = {"safety": SafetyConfig(rate=1.0)}
    with Running(offer(Telling(), **rules)) as running, remote(running, prompt_s=PATIENCE_S) as controller:
        controller.reset(at=np.array([1.0], np.float32))
        planned(controller)
        controller.observe(seen(-9.0), 1.05)
        controller.plan(1.05)  # from now on the other way, which nobody has told the robot yet
        with Hung(running):
            controller._patience_s = 0.02
            assert controller.action_at(1.2) == pytest.approx(1.2)
        controller._patience_s = PATIENCE_S
        assert controller.action_at(1.3) == pytest.approx(1.1)  # 0.1 back from 1.2, though the server had said 0.8
        assert controller.counts.answered == 2


def test_a_plan_that_was_waited_for_is_obeyed_at_once_and_the_one_before_where_the_answer_is_late():
    with Running(offer(Telling())) as running, remote(running, prompt_s=1e-9) as controller:
        planned(controller)
        controller.observe(seen(9.0), 1.1)
        controller.plan(1.1)
        assert controller._conduct.knows(1.1)
        assert controller.action_at(1.1) == pytest.approx(9.0)
        controller.observe(seen(20.0), 1.2)
        controller.plan(1.2)
        with Hung(running):
            controller._patience_s = 0.02
            said = controller.tick(1.2)
            assert (said.action, said.ahead) == (pytest.approx(9.1), True)


def test_where_the_connection_has_ended_the_robot_is_held_at_once():
    with Running(offer(Telling())) as running, remote(running, prompt_s=PATIENCE_S) as controller:
        planned(controller)
        running.stop()
        said = controller.tick(1.1)
        assert (said.action, said.held, said.ahead) == (1.0, True, False)


def test_a_robot_that_is_to_wait_for_answers_alone_is_held():
    with Running(offer(Telling())) as running, remote(running, prompt_s=None) as controller:
        planned(controller)
        with Hung(running):
            controller._patience_s = 0.02
            assert controller.tick(1.1).held


def test_a_question_that_waits_to_be_sent_stays_one_where_a_late_answer_is_of_use():
    with Running(offer(Telling())) as running, remote(running, prompt_s=0.001) as controller:
        planned(controller)
        outbox = controller._upkeep._link._outbox
        free, outbox._free = outbox._free, lambda: False  # as behind a picture, by the thread
        send, gate = outbox._send, threading.Event()
        outbox._send = lambda data: (gate.wait(PATIENCE_S), send(data))
        assert controller.tick(1.1).ahead
        assert controller.tick(1.2).ahead
        assert len(outbox._waiting) + outbox._sending == 2
        gate.set()
        outbox._free = free
        until(lambda: not outbox._waiting)
        controller._prompt_s = PATIENCE_S
        assert controller.action_at(1.3) == pytest.approx(1.3)
        assert controller.counts.late == 2


def test_a_plan_that_waits_to_be_sent_is_not_asked_for_when_nobody_waits_for_it_any_more():
    with Running(offer(Telling())) as running, remote(running) as controller:
        planned(controller)
        outbox, gate = controller._upkeep._link._outbox, threading.Event()
        send, outbox._free = outbox._send, lambda: False  # as behind a picture, by the thread
        outbox._send = lambda data: (gate.wait(PATIENCE_S), send(data))
        controller.observe(seen(1.1), 1.1)
        until(lambda: outbox._sending)
        with pytest.raises(ServerLostError, match="no plan came within"):
            controller.plan(1.1, timeout_s=0.02)
        assert not outbox._waiting
        gate.set()


def test_a_stop_that_the_server_says_late_is_one():
    robot = conduct()
    acted(robot, 1.0)
    robot.question(1.1)
    assert robot.unanswered(1.1, connected=True).ahead
    robot.late(answer(1.1, stopped="a wall"))
    said = robot.unanswered(1.2, connected=True)
    assert (said.stopped, said.held, said.action) == ("a wall", True, 3.0)  # the safe action


def test_a_reset_and_a_release_end_what_was_said_before():
    def answers(message):
        if message["type"] != "tick":
            return [{"type": "done", "id": message["id"]}]
        return [action(message), ahead(message, (9.0, 5.0))]

    with Saying(answers) as url, RemoteController(url, patience_s=PATIENCE_S, prompt_s=PATIENCE_S) as controller:
        for forget in (controller.reset, controller.release):
            assert controller.action_at(1.0) == 9.0
            controller.tick(1.0)
            assert controller._conduct.knows(1.1)
            forget()
            assert not controller._conduct.knows(1.1)
            controller._late({**told(1.0), "of": controller._since - 1})  # asked before
            assert not controller._conduct.knows(1.1)
            controller._late({**told(1.0), "of": controller._since + 1})
            assert controller._conduct.knows(1.1)


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


def test_what_a_lost_connection_says_late_is_worth_nothing():
    with Running(offer(Telling())) as running, remote(running, prompt_s=PATIENCE_S) as controller:
        planned(controller)
        hear = controller._upkeep._mail._other
        controller._upkeep.lose("a test wants it")
        until(lambda: controller.connected)
        controller._conduct.meet(controller.welcome)
        hear({**told(1.0), "of": 99})
        assert not controller._conduct.knows(1.0)
        controller._upkeep._mail._other({**told(1.0), "of": 99})
        assert controller._conduct.knows(1.0)


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


@pytest.mark.parametrize("odd", [{"id": np.zeros(2)}, {"type": "ahead"}, {"type": "ahead", "of": "x"}], ids=repr)
def test_an_answer_with_an_odd_number_ends_the_connection(odd):
    def answers(message):
        return [{**action(message), "id": None, **odd}]

    with Saying(answers) as url, RemoteController(url, patience_s=PATIENCE_S) as controller:
        assert controller.tick(1.0).held
        assert controller.counts.lost == 1


def test_actions_that_are_changes_go_on_too():
    policy = Telling()
    policy.action_spec = ActionSpec((1,), kind="delta")
    with Running(offer(policy)) as running, remote(running, prompt_s=PATIENCE_S) as controller:
        planned(controller)
        with Hung(running):
            controller._patience_s = 0.02
            assert controller.action_at(1.1) == pytest.approx(1.1)
