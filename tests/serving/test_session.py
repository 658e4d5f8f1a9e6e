"""What time it is, only the robot tells; what is of another episode or too old leaves nothing behind."""

import threading
from contextlib import suppress

import numpy as np
import pytest

from diffusion_policy.config import ObsField
from diffusion_policy.control.plan import answers
from diffusion_policy.errors import ObservationError
from diffusion_policy.serving.offer import RefusedError
from diffusion_policy.serving.protocol import ProtocolError
from diffusion_policy.serving.session import Session
from tests.control.clocks import STEP, Telling, seen
from tests.serving.raw import HELLO, Raw, until
from tests.serving.running import PATIENCE_S, Running, offer

SAFE = np.array([7.0], np.float32)


def session(policy=None, planning="auto"):
    return Session(offer(policy or Telling(), safe_action=SAFE), {**HELLO, "planning": planning})


def observe(client, time_s, stamp_s=None, **more):
    obs = {**seen(time_s), **more}
    return client.take({"type": "observe", "time_s": time_s if stamp_s is None else stamp_s, "obs": obs})


def tick(client, time_s):
    return client.take({"type": "tick", "id": 1, "time_s": time_s})


def planned(client):
    """Makes the plan that is due, if one is."""
    if client.is_due():
        question = client.question()
        client.answered(question, answers(client.controller.policy, [question])[0])


def test_what_comes_next_is_told_behind_an_action_and_behind_nothing_else():
    client = session()
    observe(client, 1.0)
    assert client.ahead(None) is None
    assert client.ahead(client.take({"type": "release", "id": 4})) is None
    tick(client, 1.0)
    planned(client)
    answer = tick(client, 1.1)
    said = client.ahead(answer)
    assert {name: said[name] for name in ("type", "of", "time_s", "observed_s", "plan_start_s")} == {
        "type": "ahead", "of": 1, "time_s": 1.1, "observed_s": 1.0, "plan_start_s": 1.0
    }  # fmt: skip
    assert said["next_s"] == pytest.approx(1.1)
    np.testing.assert_array_equal(said["next"], client.controller.ahead(9).actions)
    assert said["next"][0] == answer["action"]
    late = tick(client, 60.0)
    assert late["starved"]
    assert (client.ahead(late)["next_s"], client.ahead(late)["next"]) == (None, None)


ODD = [
    None, True, 0, -1, 1.5, float("nan"), 1e300, "", "auto", b"x", [], [np.zeros(2)], {}, {"x": np.zeros(2)},
    *(np.zeros(shape, dtype) for shape in ((), 0, 1, 2, (2, 3)) for dtype in (np.float32, np.int64, bool)),
]  # fmt: skip
MESSAGES = [
    {"type": "observe", "time_s": 1.0, "obs": seen(1.0)},
    {"type": "tick", "id": 1, "time_s": 1.0, "sent": np.zeros(1), "sent_s": 1.0, "stopped": None},
    {"type": "plan", "id": 1, "time_s": 1.0},
    {"type": "reset", "id": 1, "seed": 1, "at": np.zeros(1), "moved": False, "stopped": None},
    {"type": "release", "id": 1},
]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_whatever_a_message_holds_it_is_answered_or_is_none_of_this_protocol(value):
    obs = {"now": {"type": "low_dim", "shape": [1]}}
    hellos = [{**HELLO, name: value} for name in HELLO.keys() - {"type"}]
    hellos += [{**HELLO, "obs": {"now": value}}, {**HELLO, "obs": {"now": {**obs["now"], "type": value}}}]
    hellos += [{**HELLO, "obs": {"now": {**obs["now"], "shape": [value]}}}]
    for hello in hellos:
        with suppress(ProtocolError, RefusedError):
            Session(offer(Telling()), hello)
    client = session()
    for message in MESSAGES:
        for name in message.keys() - {"type"}:
            odd = {**message, name: value} if name != "obs" else {**message, "obs": {"now": value}}
            with suppress(ProtocolError, ObservationError):
                client.question(odd) if odd["type"] == "plan" else client.take(odd)


def test_observations_of_a_wrong_clock_starve_no_robot():
    for wrong in (0, 5):  # before the robot has told its time, and after
        client, starved = session(), []
        for number in range(25):
            now = 1 + number * STEP
            if number == wrong:
                observe(client, now, stamp_s=now + 3600.0)
            observe(client, now)
            starved.append(tick(client, now)["starved"])
            planned(client)
        assert sum(starved) == 1, wrong  # the first tick, after which the first plan is made


def test_what_time_it_is_only_ticks_and_plans_tell():
    client = session()
    assert observe(client, 1.0) is None
    assert not client.is_due()
    tick(client, 1.0)
    assert client.is_due()
    asking = session()
    observe(asking, 1.0)
    asking.question({"type": "plan", "time_s": 1.0})
    observe(asking, 1.0 + 2 * STEP)
    assert not asking.is_due()


@pytest.mark.parametrize("planning", ["asked", "auto"])
def test_the_first_plan_begins_with_the_robots_next_tick_however_long_it_took(planning):
    client = Session(offer(Telling()), {**HELLO, "planning": planning})  # no safe action: nothing is sent before
    observe(client, 1.0)
    if planning == "auto":
        assert "no action to send yet" in tick(client, 1.0)["message"]
    question = client.question({"type": "plan", "time_s": 1.0})
    client.answered(question, answers(client.controller.policy, [question])[0])
    said = [tick(client, 4.0 + number * STEP) for number in range(7)]  # 3 s later; the plan has actions for 0.7
    assert [each["action"][0] for each in said] == pytest.approx([1.0 + number * STEP for number in range(7)])
    assert said[0]["plan_start_s"] == 4.0
    assert not any(each["starved"] for each in said)
    assert client.controller.counts.skipped == client.controller.counts.expired == 0


def test_a_first_plan_that_the_robot_did_not_wait_for_begins_at_its_observation():
    client = session(planning="asked")
    observe(client, 1.0)
    question = client.question({"type": "plan", "time_s": 1.0})
    assert tick(client, 1.1)["action"] == 7.0  # it went to the safe action meanwhile
    client.answered(question, answers(client.controller.policy, [question])[0])
    assert tick(client, 1.3)["action"] == pytest.approx(1.3)
    client.take({"type": "reset", "id": 1, "seed": None, "at": None, "stopped": None})
    question = None
    observe(client, 2.0)
    question = client.question({"type": "plan", "time_s": 2.0})
    client.answered(question, answers(client.controller.policy, [question])[0])
    held = np.array([7.5], np.float32)  # by the client, which had no answer
    said = client.take({"type": "tick", "id": 1, "time_s": 2.3, "sent": held, "sent_s": 2.2})
    assert said["action"] == pytest.approx(2.3)


def test_a_client_is_told_when_planning_is_too_slow_for_its_rate():
    client, asked = session(), None
    observe(client, 1.0)
    for number in range(9):
        said = tick(client, 1 + number * STEP)
        assert said["slow"] is None
        asked = asked or client.question()
    client.answered(asked, answers(client.controller.policy, [asked])[0])
    said = tick(client, 1.9)
    assert said["slow"].startswith(
        "a plan came 0.8 s after the observation that it rests on, and its 7 actions last 0.7 s"
    )
    assert said["starved"]


def test_plan_that_fails_after_another_episode_began_is_no_matter_of_this_one(caplog):
    policy, begun, let = Telling(), threading.Event(), threading.Event()
    predict = policy.predict

    def late(obs, noise):
        policy.predict = predict
        begun.set()
        let.wait(PATIENCE_S)
        raise RuntimeError("out of memory")

    policy.predict = late
    with Running(offer(policy, safe_action=SAFE)) as running, Raw(running.url, planning="auto") as client:
        client.see(1.0)
        assert begun.wait(PATIENCE_S)
        client.ask(type="reset", seed=None, at=None, stopped=None)
        client.observe(2.0)
        let.set()
        until(lambda: client.ask(type="tick", time_s=2.0)["plan_start_s"] == 2.0)
        assert client.ask(type="tick", time_s=2.1)["failed"] is None
    assert "out of memory" in caplog.text


def test_a_client_that_only_observes_does_not_make_the_server_grow():
    policy = Telling()
    policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (480, 640, 3))}
    client, eye = session(policy, "asked"), np.zeros((480, 640, 3), np.uint8)
    most = 0
    for number in range(120):
        observe(client, number * STEP, stamp_s=1e6 if number % 10 == 0 else None, eye=eye)
        most = max(most, len(client.controller.history))
    assert most < 48  # 44 MB of pictures; without a bound it would be 120 of them, and go on
    client.question({"type": "plan", "time_s": 119 * STEP})  # what the policy reads is still there
    assert client.question().window["now"].ravel().tolist() == np.float32([118 * STEP, 119 * STEP]).tolist()


def test_a_stop_that_a_tick_tells_stands_until_release():
    client = session()
    said = client.take({"type": "tick", "id": 1, "time_s": 1.0, "stopped": "the server was silent"})
    assert said["stopped"] == "the server was silent"
    assert tick(client, 1.1)["stopped"] == "the server was silent"
    client.take({"type": "release", "id": 2})
    assert tick(client, 1.2)["stopped"] is None
