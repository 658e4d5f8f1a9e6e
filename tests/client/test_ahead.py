"""What the server said before that would come: the robot goes on by it where an answer is late, and only then."""

import threading
import time

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy_client import RemoteController
from diffusion_policy_client.errors import ServerLostError
from tests.client.robots import WELCOME, Hung, Saying, action, ahead, remote, told, until
from tests.control.clocks import STEP, Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer


def planned(controller):
    """Makes the plan of 1.0, whose actions are their times until 1.6."""
    controller.observe(seen(1.0), 1.0)
    controller.plan(1.0)
    assert controller.action_at(1.0) == pytest.approx(1.0)


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
