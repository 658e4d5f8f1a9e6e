"""Controllers that wait as long as a loaded machine wants, and what a server says first."""

import time

import numpy as np

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
    return RemoteController(running.url, **{"planning": "asked", "patience_s": PATIENCE_S, **settings})


def until(true):
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.005)
