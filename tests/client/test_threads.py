"""Threads that use one controller at once: each gets the answers to its own questions, and none waits for ever."""

import random
import threading

import numpy as np

from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy_client import ServerLostError
from diffusion_policy_client.mail import Mail
from tests.client.robots import remote
from tests.control.clocks import STEP, Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer


def test_whoever_reads_hands_over_what_others_wait_for():
    asked, chance, others = [], random.Random(0), []
    given, changed = [{"id": None, "type": "error"}, {"id": "odd"}, {"id": []}], threading.Condition()

    def receive(timeout_s):
        with changed:
            changed.wait_for(lambda: given or len(asked) == 40, max(0.0, timeout_s))
            if not given:
                given.extend({"id": number} for number in chance.sample(asked, len(asked)))
                asked.clear()
            return given.pop(0) if given else None

    mail, found = Mail(receive, others.append), {}

    def ask(number):
        mail.expect(number)
        with changed:
            asked.append(number)
            changed.notify_all()
        found[number] = mail.answer(number, PATIENCE_S)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == {number: {"id": number} for number in range(40)}
    assert [each["id"] for each in others] == [None, "odd", []]
    assert mail._expected == {}


def test_calls_of_many_threads_with_a_connection_that_breaks_all_end_and_send_nothing_forbidden():
    rules = {"safety": SafetyConfig(low=-50.0, high=50.0), "safe_action": np.array([7.0], np.float32)}
    chance, sent = random.Random(0), []

    def tick(controller, number):
        controller.observe(seen(number * STEP), number * STEP)
        sent.append(controller.tick(number * STEP).action)

    def plan(controller, number):
        controller.plan(number * STEP)

    def reset(controller, number):
        controller.reset(number, np.array([chance.uniform(-90, 90)], np.float32))

    def release(controller, _):
        controller.release()

    def cut(controller, _):
        controller._upkeep.lose("a test wants it")

    def run(controller, call, times):
        for number in range(times):
            try:
                call(controller, number)
            except ServerLostError as error:  # of a plan
                said.append(str(error))
            except Exception as error:
                wrong.append(error)

    said, wrong = [], []
    with Running(offer(Telling(), **rules)) as running, remote(running, on_lost="stop", lost_s=0.3) as controller:
        tick(controller, 0)
        calls = [(tick, 60), (tick, 60), (plan, 20), (reset, 20), (release, 20), (cut, 5)]
        threads = [threading.Thread(target=run, args=(controller, *call), daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)
    assert [error for error in wrong if "nothing was observed" not in str(error)] == []
    assert len(sent) == 121
    assert (np.abs(sent) <= 50).all()
