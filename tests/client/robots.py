"""Controllers that wait as long as a loaded machine wants, and servers that hang or say what a test wants."""

import threading
import time

import numpy as np
from websockets.sync.server import serve

from diffusion_policy.serving.protocol import pack, unpack
from diffusion_policy_client import RemoteController
from diffusion_policy_client.protocol import PROTOCOL
from tests.control.clocks import STEP
from tests.serving.running import PATIENCE_S

WELCOME = {
    "type": "welcome", "protocol": PROTOCOL, "obs": {}, "horizons": {}, "step_s": STEP, "safe_action": np.array([3.0]),
    "action": {"shape": [1], "low": None, "high": None, "unit": "", "names": [], "kind": "absolute"},
    "limits": {"low": np.full(1, -np.inf), "high": np.full(1, np.inf), "rate": np.full(1, np.inf), "elapsed_s": 0.2},
}  # fmt: skip


def remote(running, **settings):
    given = {"planning": "asked", "patience_s": PATIENCE_S, "prompt_s": None, **settings}  # waits for answers, alone
    return RemoteController(running.url, **given)


def until(true):
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)


class Hung:
    """A server whose loop hangs, and whose sockets are open."""

    def __init__(self, running):
        self._gate = threading.Event()
        running._loop.call_soon_threadsafe(self._gate.wait, PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._gate.set()


class Saying:
    """A server that says what a test wants, to each message after hello."""

    def __init__(self, answers, welcomes=()):
        self._answers, self._welcomes = answers, list(welcomes)
        self._closing = serve(self._attend, "127.0.0.1", 0)

    def _attend(self, connection):
        connection.recv()
        connection.send(pack(self._welcomes.pop(0) if self._welcomes else WELCOME))
        for data in connection:
            for answer in self._answers(unpack(data)):
                connection.send(pack(answer))

    def __enter__(self):
        server = self._closing.__enter__()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

    def __exit__(self, *_):
        self._closing.shutdown()
        self._closing.__exit__(None, None, None)


def action(message, **more):
    said = {"observed_s": None, "plan_start_s": None, "starved": False, "stopped": None, "failed": None, "slow": None}
    said |= {"time_s": message.get("time_s")}
    return {"type": "action", "id": message["id"], "action": np.array([9.0]), **said, **more}


def ahead(message, coming, **more):
    said = {"of": message["id"], "time_s": message["time_s"], "observed_s": None, "plan_start_s": None}
    coming = None if coming is None else np.array(coming)[:, None]
    return {"type": "ahead", **said, "next_s": message["time_s"], "next": coming, **more}


def answer(now_s, **more):
    said = {"action": np.array([1.0]), "observed_s": 0.5, "plan_start_s": 0.6}
    return action({"id": 1, "time_s": now_s}, **{**said, **more})


def told(now_s, coming=(1.0, 2.0, 3.0, 4.0), **more):
    return ahead({"id": 1, "time_s": now_s}, coming, **{"observed_s": 0.5, "plan_start_s": 0.6, **more})
