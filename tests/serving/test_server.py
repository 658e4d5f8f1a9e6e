"""The server lives, whatever its clients do; each has a controller of its own."""

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.serving import attendant, server
from diffusion_policy.serving.protocol import pack, unpack
from tests.control.clocks import STEP, Telling
from tests.serving.raw import HELLO, Raw, lives, until
from tests.serving.running import PATIENCE_S, Running, offer


def test_each_client_has_a_controller_of_its_own(running):
    with Raw(running.url) as first, Raw(running.url) as second:
        for client, now in ((first, 1.0), (second, 50.0)):
            client.observe(now)
            client.ask(type="plan", time_s=now)
            client.ask(type="tick", time_s=now)
        assert first.ask(type="tick", time_s=1.2)["action"] == pytest.approx(1.2)
        assert second.ask(type="tick", time_s=50.1)["action"] == pytest.approx(50.1)
        assert first.ask(type="reset", seed=None, at=None, stopped=None)["type"] == "done"
        assert first.ask(type="tick", time_s=1.2)["starved"]  # held where it is, without a plan of this episode
        assert second.ask(type="tick", time_s=50.2)["action"] == pytest.approx(50.2)


def test_server_plans_by_itself_as_its_strategy_wants(running):
    with Raw(running.url, planning="auto") as client:
        for number in range(6):
            client.see(number * STEP)
            until(lambda: len(running.offered.policy.asked) == max(1, (number + 1) // 2))  # noqa: B023
        assert client.ask(type="tick", time_s=5 * STEP)["action"] == pytest.approx(5 * STEP)
        assert running.server.health()["plans"] == 3


def test_a_slow_policy_stops_neither_ticks_nor_the_other_clients_nor_healthz():
    policy, let = Telling(), threading.Semaphore(0)
    predict = policy.predict
    policy.predict = lambda obs, noise: (let.acquire(timeout=PATIENCE_S), predict(obs, noise))[1]
    with Running(offer(policy, safe_action=np.array([7.0], np.float32))) as running:
        with Raw(running.url, planning="auto") as slow, Raw(running.url) as other:
            slow.see(0.0)
            until(lambda: running.server.health()["planning_s"] > 0)
            for client in (slow, other):
                assert client.ask(type="tick", time_s=0.0)["action"] == 7.0
            with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/healthz", timeout=PATIENCE_S) as said:
                assert json.load(said)["clients"] == 2
            let.release(9)
            until(lambda: slow.ask(type="tick", time_s=0.2)["action"] == pytest.approx(0.2))
        let.release(9)


def test_one_that_asks_all_the_time_waits_its_turn():
    policy = Telling()
    policy.asked_by = []
    predict = policy.predict
    policy.predict = lambda obs, noise: (
        time.sleep(0.02),
        policy.asked_by.append(obs["now"][0, -1, 0]),
        predict(obs, noise),
    )[2]
    with Running(offer(policy)) as running, Raw(running.url) as greedy, Raw(running.url) as other:
        greedy.observe(1.0)
        for number in range(40):  # all but two are refused: one is made, one waits
            greedy.connection.send(pack({"type": "plan", "id": 100 + number, "time_s": 1.0}))
        other.observe(2.0)
        before = len(policy.asked_by)
        assert other.ask(type="plan", time_s=2.0)["type"] == "done"
        assert policy.asked_by[before:].index(2.0) <= 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xc1garbage",
        "text",
        pack({"type": "observe"}),
        pack({"type": "observe", "time_s": 0.0, "obs": {"now": "x"}}),
        pack({"type": "tick", "id": 1, "time_s": float("nan")}),
        pack({"type": "tick", "id": -1, "time_s": 0.0}),
        pack({"type": "tick", "id": 1, "time_s": 1e308}),
        pack({"type": "plan", "id": None, "time_s": 0.0}),
        pack({"type": "reset", "id": 1, "seed": -4}),
        pack({"type": "nonsense", "id": 1}),
        pack(HELLO),
        b"\x81" * 2000,
    ],
)
def test_garbage_ends_its_own_connection_alone(running, garbage):
    with Raw(running.url) as other, Raw(running.url) as client:
        client.connection.send(garbage)
        assert client.closed()[0] in (1002, 1007)
        other.observe(0.0)
        assert other.ask(type="plan", time_s=0.0)["type"] == "done"
    lives(running)


def test_too_long_a_message_is_not_read(running):
    with Raw(running.url) as client:
        client.connection.send(b"x" * 1_000_000)
        assert client.closed()[0] == 1009
    lives(running)


def test_what_is_not_possible_is_answered_and_the_connection_stays(running):
    with Raw(running.url) as client:
        assert client.ask(type="tick", time_s=0.0)["kind"] == "observation"
        assert client.ask(type="plan", time_s=0.0)["kind"] == "observation"
        wrong = {"type": "observe", "time_s": 0.0, "obs": {"now": np.zeros(5, np.float32)}}
        assert "must have shape (1,)" in client.ask_as_it_is(wrong)["message"]
        assert client.ask(type="reset", seed=1, at=np.zeros(9), stopped=None)["kind"] == "config"
        assert client.ask(type="reset", seed=1, at=np.array([1e300]), stopped=None)["kind"] == "config"
        assert client.ask(type="tick", time_s=0.0, sent=np.array([np.nan]), sent_s=0.0)["kind"] == "config"
        client.observe(0.0)
        assert client.ask(type="plan", time_s=0.0)["type"] == "done"


def test_half_a_message_and_a_cut_wire_end_one_client(running):
    with Raw(running.url) as client:
        client.connection.socket.sendall(b"\x82\xfe\x10\x00abcdhalf")  # a frame of 4096 bytes, of which 4 come
        client.connection.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: running.clients == 0)
    with socket.create_connection(("127.0.0.1", running.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgr")
    lives(running)


def test_a_client_that_goes_while_its_plan_is_made_leaves_nothing():
    policy, let = Telling(), threading.Semaphore(0)
    predict = policy.predict
    policy.predict = lambda obs, noise: (let.acquire(timeout=PATIENCE_S), predict(obs, noise))[1]
    with Running(offer(policy)) as running:
        with Raw(running.url, planning="auto") as client:
            client.see(0.0)
            until(lambda: running.server.health()["planning_s"] > 0)
        until(lambda: running.clients == 0)
        let.release(99)
        lives(running)


def test_an_action_is_told_before_what_comes_next():
    with Running(offer(Telling())) as running, Raw(running.url) as client:
        client.observe(1.0)
        client.ask(type="plan", time_s=1.0)
        for number in (41, 42):
            client.connection.send(pack({"type": "tick", "id": number, "time_s": 1.0}))
        said = [unpack(client.connection.recv(timeout=PATIENCE_S)) for _ in range(4)]
    numbers = [(each["type"], each.get("id", each.get("of"))) for each in said]
    assert numbers == [("action", 41), ("ahead", 41), ("action", 42), ("ahead", 42)]
    assert said[3]["next"].ravel() == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6])


def test_a_plan_that_waits_when_another_episode_begins_is_refused_and_leaves_its_clock_behind():
    policy, let = Telling(), threading.Semaphore(0)
    predict = policy.predict
    policy.predict = lambda obs, noise: (let.acquire(timeout=PATIENCE_S), predict(obs, noise))[1]
    with Running(offer(policy)) as running, Raw(running.url) as client:
        client.observe(100.0)
        client.connection.send(pack({"type": "plan", "id": 71, "time_s": 100.0}))
        until(lambda: running.server.health()["planning_s"] > 0)
        client.connection.send(pack({"type": "plan", "id": 72, "time_s": 100.0}))
        client.connection.send(pack({"type": "reset", "id": 73, "seed": None, "at": None, "stopped": None}))
        said = [unpack(client.connection.recv(timeout=PATIENCE_S)) for _ in range(2)]
        assert [(each["type"], each["id"]) for each in said] == [("error", 72), ("done", 73)]
        let.release(9)
        assert unpack(client.connection.recv(timeout=PATIENCE_S)) == {"type": "done", "id": 71}  # dropped, and counted
        client.observe(1.0)
        assert client.ask(type="plan", time_s=1.0)["type"] == "done"
        assert client.ask(type="tick", time_s=1.1)["action"] == pytest.approx(1.0)


def test_a_policy_that_raises_is_told_to_its_client_and_a_reset_tries_again(caplog):
    policy = Telling()
    predict = policy.predict
    policy.predict = lambda obs, noise: 1 / 0 if obs["now"][0, -1, 0] == 13 else predict(obs, noise)
    with Running(offer(policy, safe_action=np.array([7.0], np.float32))) as running:
        with Raw(running.url) as asking, Raw(running.url, planning="auto") as client:
            asking.observe(13.0)
            answer = asking.ask(type="plan", time_s=13.0)
            assert (answer["kind"], answer["message"]) == ("policy", "no plan could be made: division by zero")
            client.observe(13.0)
            until(lambda: client.ask(type="tick", time_s=13.0)["failed"] is not None)
            assert client.ask(type="reset", seed=None, at=None, stopped=None)["type"] == "done"
            client.observe(14.0)
            until(lambda: client.ask(type="tick", time_s=14.0)["plan_start_s"] == 14.0)
            assert client.ask(type="tick", time_s=14.0)["failed"] is None
        lives(running)


def test_a_defect_of_the_server_costs_one_client(running, monkeypatch, caplog):
    from diffusion_policy.serving.session import Session

    with Raw(running.url) as client, monkeypatch.context() as patch:
        patch.setattr(Session, "take", lambda self, message: 1 / 0)
        client.connection.send(pack({"type": "tick", "id": 1, "time_s": 0.0}))
        assert client.closed()[0] == 1011
    assert "ZeroDivisionError" in caplog.text
    lives(running)


def test_a_client_that_does_not_read_its_answers_is_dropped_by_name(monkeypatch, caplog):
    monkeypatch.setattr(attendant, "_TAKEN_S", 0.3)
    with ExitStack() as stack, Running(offer(Telling(), safe_action=np.array([7.0], np.float32))) as running:
        small = stack.enter_context(socket.socket())
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect(("127.0.0.1", running.port))
        deaf = stack.enter_context(connect(running.url, sock=small, compression=None, ping_interval=None))
        deaf.send(pack({**HELLO, "client": "a robot that hangs"}))
        until(lambda: running.clients == 1)
        tick = pack({"type": "tick", "id": 1, "time_s": 1.0})
        with suppress(ConnectionClosed):
            while running.clients:  # its own side takes some of what comes, and then nothing
                deaf.send(tick)
        until(lambda: running.clients == 0)
        lives(running)
    assert re.search("dropped a robot that hangs, a client from 127.0.0.1 port .*: it did not read", caplog.text)


def test_a_client_that_hangs_and_answers_no_ping_is_dropped_by_name(monkeypatch, caplog):
    monkeypatch.setattr(server, "_PING_S", 2.0)
    with ExitStack() as stack, Running(offer(Telling(), safe_action=np.array([7.0], np.float32))) as running:
        hung = stack.enter_context(connect(running.url, compression=None, ping_interval=None, max_queue=1))
        hung.send(pack({**HELLO, "client": "a robot that hangs"}))
        for number in range(20):  # more answers than its library keeps: from then on it reads no pings, either
            hung.send(pack({"type": "tick", "id": number, "time_s": 1.0}))
        until(lambda: running.clients == 0 and caplog.text)
    assert re.search("dropped a robot that hangs, a client from 127.0.0.1 port .*: keepalive ping timeout", caplog.text)


def test_a_policy_that_is_too_slow_is_said_once_by_name_and_in_figures(caplog):
    policy, let = Telling(), threading.Semaphore(0)
    predict = policy.predict
    policy.predict = lambda obs, noise: (let.acquire(timeout=PATIENCE_S), predict(obs, noise))[1]
    with Running(offer(policy)) as running, Raw(running.url) as client:
        let.release()
        client.observe(0.0)
        assert client.ask(type="plan", time_s=0.0)["type"] == "done"
        assert client.ask(type="tick", time_s=0.0)["slow"] is None
        for now in (0.2, 2.2):  # plans of 0.7 s that take 0.8
            client.observe(now)
            client.connection.send(pack({"type": "plan", "id": 71, "time_s": now}))
            client.ask(type="tick", time_s=now + 0.8)
            let.release()
            assert client.next() == {"type": "done", "id": 71}
        said = client.ask(type="tick", time_s=3.0)["slow"]
    assert said == (
        "a plan came 0.8 s after the observation that it rests on, and its 7 actions last 0.7 s: all of them were past"
    )
    (line,) = caplog.messages
    assert re.fullmatch(rf"test 1, a client from 127.0.0.1 port \d+, by Chunking: {re.escape(said)}", line)


def test_a_stop_is_carried_over_and_only_release_ends_it():
    rules = SafetyConfig(rate=1.0)
    offered = offer(Telling(), safety=rules, safe_action=np.array([0.0], np.float32))
    with Running(offered) as running, Raw(running.url) as client:
        at = np.array([5.0], np.float32)
        client.ask(type="reset", seed=None, at=at, stopped="the client was lost")
        answer = client.ask(type="tick", time_s=10.0)
        assert answer["stopped"] == "the client was lost"
        assert answer["action"] == pytest.approx(5.0 - 1.0 * STEP)  # no faster than permitted
        client.ask(type="release")
        assert client.ask(type="tick", time_s=10.1)["stopped"] is None
