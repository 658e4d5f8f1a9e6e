"""Clients of bytes, and what a server that lives does for them."""

import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from diffusion_policy.serving.protocol import PROTOCOL, pack, unpack
from tests.control.clocks import STEP, seen
from tests.serving.running import PATIENCE_S

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
        return self.next()

    def next(self):
        """Returns the next message, beside what is next for the robot."""
        while (answer := unpack(self.connection.recv(timeout=PATIENCE_S)))["type"] == "ahead":
            pass  # behind the one before
        return answer

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


def lives(running):
    """Asserts that a new client gets a plan's action."""
    with Raw(running.url) as client:
        client.observe(3.0)
        assert client.ask(type="plan", time_s=3.0)["type"] == "done"
        assert client.ask(type="tick", time_s=3.0 + STEP)["action"] == pytest.approx(3.0)  # for which it waited


def until(true):
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)
