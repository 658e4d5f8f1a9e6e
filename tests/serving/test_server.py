"""The server lives, whatever its clients do; each has a controller of its own; each mismatch names both sides."""

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from diffusion_policy.config import ObsField
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.errors import ConfigError
from diffusion_policy.serving.protocol import PROTOCOL, pack, unpack
from diffusion_policy.serving.server import PolicyServer, ServerConfig
from tests.control.clocks import STEP, Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer

HELLO = {"type": "hello", "protocol": PROTOCOL, "client": "test 1", "obs": None, "step_s": None, "planning": "asked"}


class Raw:
    """A client of bytes."""

    def __init__(self, url, **hello):
        self._number = 0
        self._closing = connect(url, compression=None, proxy=None, max_size=None)
        self.connection = self._closing.__enter__()
        self.said = self.ask_as_it_is({**HELLO, **hello}) if hello.get("type", "") is not None else None

    def ask_as_it_is(self, message):
        self.connection.send(pack(message))
        return unpack(self.connection.recv(timeout=PATIENCE_S))

    def ask(self, **message):
        self._number += 1
        answer = self.ask_as_it_is({**message, "id": self._number})
        assert answer["id"] == self._number
        return answer

    def observe(self, time_s):
        self.connection.send(pack({"type": "observe", "time_s": time_s, "obs": seen(time_s)}))

    def see(self, time_s):
        """Observes, and tells what time it is."""
        self.observe(time_s)
        return self.ask(type="tick", time_s=time_s)

    def closed(self):
        """Returns the code and the reason with which the server closed."""
        with pytest.raises(ConnectionClosed) as error:
            self.connection.recv(timeout=PATIENCE_S)
        return error.value.rcvd.code, error.value.rcvd.reason

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closing.__exit__(None, None, None)


@pytest.fixture
def running():
    with Running(offer(Telling())) as found:
        yield found


def lives(running):
    """Asserts that a new client gets a plan's action."""
    with Raw(running.url) as client:
        client.observe(3.0)
        assert client.ask(type="plan", time_s=3.0)["type"] == "done"
        assert client.ask(type="tick", time_s=3.0 + STEP)["action"] == pytest.approx(3.0 + STEP)


def until(true):
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_each_client_has_a_controller_of_its_own(running):
    with Raw(running.url) as first, Raw(running.url) as second:
        for client, now in ((first, 1.0), (second, 50.0)):
            client.observe(now)
            client.ask(type="plan", time_s=now)
        assert first.ask(type="tick", time_s=1.2)["action"] == pytest.approx(1.2)
        assert second.ask(type="tick", time_s=50.1)["action"] == pytest.approx(50.1)
        assert first.ask(type="reset", seed=None, at=None, stopped=None)["type"] == "done"
        assert first.ask(type="tick", time_s=1.2)["starved"]  # held where it is, without a plan of this episode
        assert second.ask(type="tick", time_s=50.2)["action"] == pytest.approx(50.2)


def test_server_plans_by_itself_as_its_strategy_wants(running):
    with Raw(running.url, planning="auto") as client:
        for number in range(6):
            client.see(number * STEP)
            until(lambda: len(running.offered.policy.asked) == number // 2 + 1)  # noqa: B023
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


def test_healthz_tells_and_other_paths_do_not_exist(running):
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/healthz", timeout=PATIENCE_S) as said:
        health = json.load(said)
    assert health.pop("planned_s") == health.pop("planning_s") == 0
    assert health == {"status": "ok", "protocol": PROTOCOL, "clients": 0, "plans": 0}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{running.port}/else", timeout=PATIENCE_S)


def test_token_is_wanted_and_web_pages_stay_outside():
    with Running(offer(Telling()), token="longenough") as running:
        for headers in ({}, {"Authorization": "Bearer wrong-token"}, {"Authorization": "longenough"}):
            with pytest.raises(InvalidStatus) as error:
                connect(running.url, additional_headers=headers, proxy=None).__enter__()
            assert error.value.response.status_code == 401
        right = {"Authorization": "Bearer longenough"}
        with connect(running.url, additional_headers=right, proxy=None) as connection:
            connection.send(pack(HELLO))
            assert unpack(connection.recv(timeout=PATIENCE_S))["type"] == "welcome"
        with pytest.raises(InvalidStatus) as error:
            connect(running.url, additional_headers=right, origin="http://evil.example", proxy=None).__enter__()
        assert error.value.response.status_code == 403


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ({"protocol": 99}, rf"client \(test 1\) speaks protocol 99, the server \(unknown\) {PROTOCOL}"),
        ({"obs": {"then": {"type": "low_dim", "shape": [1]}}}, r"now low_dim \(1,\); the client has then low_dim"),
        ({"obs": {"now": {"type": "low_dim", "shape": [2]}}}, r"reads now low_dim \(1,\).*has now low_dim \(2,\)"),
        ({"obs": {"now": {"type": "rgb", "shape": [1]}}}, "do not fit in now"),
        ({"step_s": 0.02}, "client acts every 0.02 s, the server plans for every 0.1 s"),
    ],
)
def test_a_client_that_does_not_fit_is_told_both_sides(running, hello, said):
    with Raw(running.url, **hello) as client:
        assert client.said["type"] == "refused"
        assert re.search(said, client.said["message"]), client.said
        assert client.closed()[0] == 4400
    lives(running)


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


@pytest.mark.parametrize(
    "first", [pack({"type": "tick", "id": 1, "time_s": 0.0}), b"\xc1", pack({**HELLO, "planning": 1})]
)
def test_a_first_message_that_is_no_hello_ends_the_connection(running, first):
    with connect(running.url, proxy=None) as connection:
        connection.send(first)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=PATIENCE_S)
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
        assert client.ask(type="tick", time_s=1.1)["action"] == pytest.approx(1.1)


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


def test_no_more_clients_than_permitted():
    with Running(offer(Telling()), max_clients=1) as running:
        with Raw(running.url), connect(running.url, proxy=None) as second:
            with pytest.raises(ConnectionClosed) as error:
                second.recv(timeout=PATIENCE_S)
            assert (error.value.rcvd.code, error.value.rcvd.reason[:2]) == (1013, "1 ")
        until(lambda: running.clients == 0)
        lives(running)


def silent(running):
    """Returns a connection that says nothing."""
    return socket.create_connection(("127.0.0.1", running.port))


def is_over(plain):
    plain.settimeout(PATIENCE_S)
    try:
        return plain.recv(1) == b""
    except ConnectionResetError:
        return True


def test_connections_that_say_nothing_are_no_more_than_permitted_and_keep_nobody_out(caplog):
    with ExitStack() as stack, Running(offer(Telling()), max_clients=2) as running:
        robot = stack.enter_context(Raw(running.url))
        crowd = [stack.enter_context(silent(running)) for _ in range(60)]
        assert all(is_over(plain) for plain in crowd[: 60 - 18])  # as many as clients, and 16
        assert len(running.server._door) == 18
        lives(running)
        robot.observe(1.0)
        assert robot.ask(type="plan", time_s=1.0)["type"] == "done"  # a client is cut off by nobody
        for plain in crowd:
            plain.close()
        until(lambda: len(running.server._door) == 0)
    assert [record.message[:11] for record in caplog.records] == ["19 connecti"]  # one line, and no traceback


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


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"host": "0.0.0.0"}, "token= is required"),
        ({"host": "example.org"}, "token= is required"),
        ({"token": "short"}, "8 or more"),
        ({"port": 99999}, "port must be in"),
        ({"max_clients": 0}, "max_clients must be at least 1"),
        ({"max_message_bytes": 10}, "at least 1024"),
        ({"max_message_bytes": 2000}, None),
    ],
)
def test_settings_that_are_no_good_are_refused_at_once(config, said):
    if said is None:
        policy = Telling()
        policy.obs_spec = {"now": ObsField("low_dim", (900,))}
        with pytest.raises(ConfigError, match="less than one observation"):
            PolicyServer(offer(policy), ServerConfig(**config))
        return
    with pytest.raises(ConfigError, match=said):
        ServerConfig(**config)


def test_rules_that_do_not_fit_the_policy_are_refused_before_anybody_connects():
    with pytest.raises(ConfigError, match=r"safety\.low"):
        PolicyServer(offer(Telling(), safety=SafetyConfig(low=[1, 2, 3])), ServerConfig())


def test_a_port_that_is_taken_is_said(running):
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {running.port}"):
        Running(offer(Telling()), port=running.port)


def test_ipv6_and_localhost_are_this_machine():
    for host in ("::1", "localhost", "127.0.0.2"):
        ServerConfig(host=host)
