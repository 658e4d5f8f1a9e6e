"""What a robot does while its server is silent, slow or wrong: it is safe, it does not wait, and a stop stands."""

import logging
import threading
import time

import numpy as np
import pytest

from diffusion_policy.config import ObsField
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy_client import MismatchError, ObservationError, RemoteController
from diffusion_policy_client.controller import Link
from diffusion_policy_client.outbox import Outbox
from tests.client.robots import WELCOME, Hung, Saying, action, remote, until
from tests.control.clocks import STEP, Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer

RULES = {"safety": SafetyConfig(rate=1.0), "safe_action": np.array([0.0], np.float32)}


def test_a_stop_stands_when_the_server_answers_again_until_it_is_released():
    with Running(offer(Telling(), **RULES)) as running, remote(running, on_lost="stop", lost_s=0.25) as controller:
        controller.reset(at=np.array([0.9], np.float32))
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        assert controller.action_at(1.0) == pytest.approx(1.0)
        with Hung(running):
            controller._patience_s = 0.01
            sent = [controller.action_at(1.0 + number * STEP)[0] for number in range(1, 5)]
            assert sent == pytest.approx([1.0, 1.0, 0.9, 0.8])
        controller._patience_s = PATIENCE_S
        controller.observe(seen(1.5), 1.5)
        controller.plan(1.5)
        said = [controller.tick(1.0 + number * STEP) for number in range(5, 8)]
        assert [tick.action[0] for tick in said] == pytest.approx([0.7, 0.6, 0.5])
        assert all("did not answer" in tick.stopped and not tick.held for tick in said)  # the server goes on with it
        assert controller.counts.lost == 0
        controller.release()
        assert controller.tick(1.8).stopped is None
        assert controller.action_at(1.9) == pytest.approx(0.7)  # to the plan's 1.9, no faster than permitted


def test_a_pause_of_the_robots_loop_is_no_silence_of_the_server():
    with Running(offer(Telling(), **RULES)) as running, remote(running, on_lost="stop", lost_s=0.25) as controller:
        assert not controller.tick(1.0).held
        with Hung(running):
            controller._patience_s = 0.01
            stopped = [controller.tick(60.0 + number * STEP).stopped for number in range(4)]
            assert [why is None for why in stopped] == [True, True, False, False]
            assert "did not answer for 0.3 s" in stopped[-1]


def test_a_server_that_knows_of_no_stop_is_not_obeyed():
    with Saying(lambda message: [action(message)]) as url, RemoteController(url, patience_s=PATIENCE_S) as controller:
        assert controller.action_at(1.0) == 9.0
        controller.stopped = "somebody pressed the button"
        said = controller.tick(1.1)
        assert (said.action, said.held, said.stopped) == (3.0, True, "somebody pressed the button")
        controller.release()
        assert controller.action_at(1.2) == 9.0


def test_an_observation_that_the_server_refuses_is_counted_and_raises_nothing():
    with Running(offer(Telling(), safe_action=np.array([7.0]))) as running, remote(running) as controller:
        controller.obs_spec = {"now": {"type": "low_dim", "shape": [5]}}  # not what the server wants
        controller.observe({"now": np.zeros(5)}, 1.0)
        assert controller.action_at(1.0) == 7.0
        assert controller.counts.refused == 1
        assert "must have shape (1,)" in controller.refused
        assert controller.counts.late == 0


def test_a_connection_that_is_made_anew_counts_no_answer_as_late():
    with Running(offer(Telling(), safe_action=np.array([7.0]))) as running, remote(running) as controller:
        running.stop()
        assert controller.tick(1.0).held
        running.start()
        until(lambda: controller.connected)
        assert controller.action_at(1.1) == 7.0
        assert (controller.counts.reconnected, controller.counts.late) == (1, 0)


def test_what_a_lost_connection_said_last_does_not_end_the_new_one():
    refusal = {"type": "error", "id": 0, "message": "not there"}
    with Running(offer(Telling(), safe_action=np.array([7.0]))) as running, remote(running) as controller:
        old, hear = controller._upkeep._link, controller._upkeep._mail._other
        controller._upkeep.lose("a test wants it")
        until(lambda: controller.connected)
        hear(refusal)  # by a thread that was about to
        assert controller._upkeep._link is not old
        assert controller.connected
        controller._upkeep._mail._other(refusal)
        assert controller.counts.lost == 2


def test_whatever_a_server_says_when_it_is_found_again_the_robot_goes_on_looking():
    strange = {**WELCOME, "action": {**WELCOME["action"], "shape": 5}}

    def answers(message):
        if message["type"] != "tick":
            return [{"type": "done", "id": message["id"]}]
        return [action(message) if message["time_s"] == 1.0 else action(message, action="up")]

    with Saying(answers, [WELCOME, strange]) as url, RemoteController(url, patience_s=PATIENCE_S) as controller:
        made = controller._upkeep._connect
        tries = []

        def wrong():
            tries.append(len(tries))
            if len(tries) == 1:
                raise KeyError("a defect")
            return made()

        controller._upkeep._connect = wrong
        assert controller.action_at(1.0) == 9.0
        assert controller.tick(1.1).held
        assert controller.counts.lost == 1
        until(lambda: controller.connected)
        assert len(tries) == 3


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), 3])
def test_numbers_of_numpy_are_numbers(number):
    with (
        Running(offer(Telling(), safe_action=np.array([7.0]))) as running,
        remote(running, step_s=np.float32(STEP)) as controller,
    ):
        controller.reset(seed=number)
        controller.observe(seen(1.0), np.float32(1.0))
        controller.plan(np.float64(1.0))
        assert controller.tick(np.float32(1.0)).plan_start_s == 1.0
        assert controller.tick(np.int64(2)).time_s == 2.0
        assert (controller.counts.lost, controller.counts.held) == (0, 0)


def test_times_and_seeds_that_no_server_takes_are_refused_here():
    with Running(offer(Telling(), safe_action=np.array([7.0]))) as running, remote(running) as controller:
        for call in (controller.tick, controller.plan, lambda time_s: controller.observe(seen(1.0), time_s)):
            with pytest.raises(ObservationError, match="nanoseconds"):
                call(time.time_ns())
            with pytest.raises(ObservationError, match="must be seconds, but got 'now'"):
                call("now")
        for seed in (1.5, -1, 2**63):
            with pytest.raises(MismatchError, match="seed must be a whole number"):
                controller.reset(seed)
        assert controller.action_at(1.0) == 7.0
        assert controller.counts.lost == 0


class Stuck:
    """A network that takes one message and then nothing, until it is let go."""

    def __init__(self):
        self.sent, self.begun, self.let = [], threading.Event(), threading.Event()

    def __call__(self, data):
        self.begun.set()
        assert self.let.wait(PATIENCE_S)
        self.sent.append(data)


def test_of_observations_that_wait_the_newest_are_sent_and_questions_all_in_their_order():
    network = Stuck()
    outbox = Outbox(network, lambda: False)
    outbox.fewest = 2
    outbox.put(b"first", None)
    assert network.begun.wait(PATIENCE_S)
    picture = b"x" * 50_000
    assert outbox.put(b"1" + picture, None) == 0
    assert outbox.put(b"question", 7) == 0
    assert outbox.put(b"withdrawn", 8) == 0
    assert outbox.put(b"2" + picture, None) == 0
    assert outbox.put(b"3" + picture, None) == 1
    assert outbox.put(b"4", None) == 1  # within the bytes that may wait now
    assert outbox.put(b"5", None) == 0
    assert outbox.unsent() == 3
    outbox.withdraw(8)
    assert not outbox.close(0.0)
    network.let.set()
    assert outbox.close(PATIENCE_S)
    assert [data[:8] for data in network.sent] == [b"first", b"question", b"3xxxxxxx", b"4", b"5"]


def test_what_the_network_takes_at_once_is_sent_by_whoever_says_it_unless_others_wait():
    network, senders = Stuck(), []
    outbox = Outbox(lambda data: (senders.append(threading.current_thread()), network(data)), lambda: free)
    free = False
    outbox.put(b"by the thread", None)
    assert network.begun.wait(PATIENCE_S)
    free = True
    outbox.put(b"behind it", 1)  # would overtake what is being sent
    network.let.set()
    until(lambda: len(network.sent) == 2 and not outbox._sending)
    outbox.put(b"at once", 2)
    outbox.put(b"large" * 10_000, None)
    assert outbox.close(PATIENCE_S)
    assert [data[:9] for data in network.sent] == [b"by the th", b"behind it", b"at once", b"largelarg"]
    here = threading.current_thread()
    assert [sender is here for sender in senders] == [False, False, True, False]


def test_a_send_of_ones_own_that_fails_is_the_end_as_one_of_the_thread_is():
    def broken(data):
        raise OSError("cut off")

    outbox = Outbox(broken, lambda: True)
    outbox.put(b"tick", 1)
    assert str(outbox.failed) == "cut off"
    assert outbox.close(PATIENCE_S)


def test_a_network_that_takes_nothing_lets_no_call_of_the_robot_wait():
    policy = Telling()
    policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (100, 100, 3))}
    eye, network = np.zeros((100, 100, 3), np.uint8), Stuck()
    with Running(offer(policy, safe_action=np.array([7.0]))) as running, remote(running) as controller:
        link = controller._upkeep._link
        link._outbox._send, link._outbox._free = network, lambda: False  # from now on; no call below may wait for it
        controller._patience_s = 0.0
        for number in range(20):
            controller.observe({**seen(number * STEP), "eye": eye}, number * STEP)
            assert controller.tick(number * STEP).held
        assert not network.sent
        assert controller.counts.unsent >= 15  # pictures that newer ones replaced
        assert link._outbox.unsent() == len(link._outbox._waiting) == 2  # what is observed now, and no tick of then
        assert controller.counts.lost == 0
        network.let.set()


def test_closing_waits_for_no_message_that_is_being_sent():
    policy = Telling()
    policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (2000, 2000, 3))}
    with Running(offer(policy)) as running, remote(running) as controller:
        link = controller._upkeep._link
        sender = link._outbox._thread
        assert not link._connection.logger.isEnabledFor(logging.ERROR)  # it would tell of a message that was cut off
        with Hung(running):
            for number in range(3):  # 36 MB, more than lies between them
                controller.observe({**seen(1.0), "eye": np.zeros((2000, 2000, 3), np.uint8)}, 1.0 + number)
            controller.close()
            until(lambda: not sender.is_alive())
            assert isinstance(link._outbox.failed.__cause__, ConnectionError)  # cut off, not given up after `_SEND_S`
            assert not controller.connected


def test_link_gives_its_thread_back_when_the_server_refuses():
    before = set(threading.enumerate())
    with Running(offer(Telling())) as running:
        with pytest.raises(MismatchError):
            Link(running.url, None, {"client": "x", "obs": None, "step_s": 9.0, "planning": "auto"}, PATIENCE_S, 1.0)
        until(lambda: not [t for t in threading.enumerate() if t.name == "outbox" and t not in before])
