"""Who is let in, and who is not: each mismatch names both sides, and who says nothing keeps nobody out."""

import json
import re
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from diffusion_policy.config import ObsField
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.errors import ConfigError
from diffusion_policy.serving.protocol import PROTOCOL, pack, unpack
from diffusion_policy.serving.server import PolicyServer, ServerConfig
from tests.control.clocks import Telling
from tests.serving.raw import HELLO, Raw, lives, until
from tests.serving.running import PATIENCE_S, Running, offer


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
    "first", [pack({"type": "tick", "id": 1, "time_s": 0.0}), b"\xc1", pack({**HELLO, "planning": 1})]
)
def test_a_first_message_that_is_no_hello_ends_the_connection(running, first):
    with connect(running.url, proxy=None) as connection:
        connection.send(first)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=PATIENCE_S)
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
