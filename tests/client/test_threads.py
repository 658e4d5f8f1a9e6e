"""Threads that use one controller at once: each gets the answers to its own questions, and none waits for ever."""

import random
import threading
from contextlib import suppress

import numpy as np
import pytest

from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy_client import ClientError, RemoteController, ServerLostError
from diffusion_policy_client.mail import Mail
from tests.client.robots import Hung, Saying, action, remote, until
from tests.control.clocks import STEP, Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer

RULES = {"safety": SafetyConfig(rate=1.0), "safe_action": np.array([0.0], np.float32)}


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
    # Of a plan beside a reset: it was asked too early, or the reset came while it was made.
    fair = ("nothing was observed", "another episode began")
    assert [error for error in wrong if not any(each in str(error) for each in fair)] == []
    assert len(sent) == 121
    assert (np.abs(sent) <= 50).all()


@pytest.mark.parametrize("call", ["reset", "release", "plan"])
def test_a_call_that_waits_for_a_hung_server_holds_up_no_tick(call, monkeypatch):
    monkeypatch.setattr("diffusion_policy_client.controller._ANSWER_S", PATIENCE_S)
    with Running(offer(Telling(), **RULES)) as running, remote(running) as controller:
        controller.reset(at=np.array([5.0], np.float32))
        controller._patience_s = 0.02

        def waits():
            with suppress(ClientError):
                getattr(controller, call)(*([1.0] if call == "plan" else []))

        with Hung(running):
            waiting = threading.Thread(target=waits, daemon=True)
            waiting.start()
            until(lambda: controller._upkeep._mail._is_read)
            for number in range(5):
                said = controller.tick(1.0 + number * STEP)
                assert (said.action, said.held) == (5.0, True)
            assert waiting.is_alive()
        waiting.join(PATIENCE_S)


def test_ticks_are_answered_while_a_plan_is_waited_for():
    policy, let = Telling(), threading.Semaphore(0)
    predict = policy.predict
    policy.predict = lambda obs, noise: (let.acquire(timeout=PATIENCE_S), predict(obs, noise))[1]
    with Running(offer(policy, safe_action=np.array([7.0]))) as running, remote(running) as controller:
        controller.observe(seen(1.0), 1.0)
        planning = threading.Thread(target=controller.plan, args=(1.0,), daemon=True)
        planning.start()
        until(lambda: running.server.health()["planning_s"] > 0)
        assert [controller.tick(1.0 + number * STEP).held for number in range(5)] == [False] * 5
        assert planning.is_alive()
        let.release(9)
        planning.join(PATIENCE_S)
        assert controller.action_at(1.6) == pytest.approx(1.6)


@pytest.mark.parametrize("call", ["reset", "release"])
def test_an_answer_to_what_was_asked_before_a_reset_or_a_release_is_worth_nothing(call):
    asked, ticks = threading.Event(), []

    def answers(message):
        if message["type"] == "tick":
            ticks.append(message)
            asked.set()
            return []
        return [action(ticks[0], stopped="a rule was broken"), {"type": "done", "id": message["id"]}]

    with Saying(answers) as url, RemoteController(url, patience_s=PATIENCE_S) as controller:
        said = []
        ticking = threading.Thread(target=lambda: said.append(controller.tick(1.0)), daemon=True)
        ticking.start()
        assert asked.wait(PATIENCE_S)
        controller.reset(at=np.array([5.0])) if call == "reset" else controller.release()
        ticking.join(PATIENCE_S)
        assert (said[0].action, said[0].held) == (5.0 if call == "reset" else 3.0, True)  # where it stands, or safe
        assert controller.stopped is None
