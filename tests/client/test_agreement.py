"""A server that does not fit, or says what is no action, is not obeyed; both sides are named."""

import threading

import numpy as np
import pytest
from websockets.sync.server import serve

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.serving.protocol import pack
from diffusion_policy_client import (
    MismatchError,
    RemoteController,
    ServerLostError,
)
from tests.client.robots import WELCOME, remote, until
from tests.control.clocks import Telling, seen
from tests.serving.running import PATIENCE_S, Running, offer


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"obs_spec": {"then": {"type": "low_dim", "shape": [1]}}}, r"reads now low_dim \(1,\); the client has then"),
        ({"step_s": 0.02}, "client acts every 0.02 s"),
        ({"token": "not-this-one"}, None),
        ({"on_lost": "fly"}, "expected hold or stop"),
        ({"patience_s": 0}, "must be positive"),
    ],
)
def test_what_does_not_fit_is_said_when_connecting(running, settings, said):
    if said is None:
        with Running(offer(Telling()), token="the-right-one") as guarded:
            with pytest.raises(MismatchError, match="wants another token"):
                remote(guarded, **settings)
            with remote(guarded, token="the-right-one") as controller:
                assert controller.connected
        return
    with pytest.raises(MismatchError, match=said):
        remote(running, **settings)


def test_no_server_is_one_error_in_time(running):
    running.stop()
    with pytest.raises(ServerLostError, match="no server at"):
        remote(running)
    with pytest.raises(MismatchError, match="expected ws://"):
        RemoteController("nonsense")


def test_a_server_with_another_policy_is_not_obeyed_and_the_right_one_is_found_again(running):
    with remote(running) as controller:
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        assert not controller.tick(1.0).held
        right = running.offered
        running.stop()
        controller.tick(1.1)
        other = Telling()
        other.action_spec = ActionSpec((1,), low=-1.0, high=1.0)
        running.offered = offer(other)
        running.start()
        until(lambda: "has another policy now" in (controller.error or ""))
        other.obs_spec = {"else": ObsField("low_dim", (1,))}
        until(lambda: "else low_dim" in (controller.error or ""))
        assert controller.action_at(1.2) == pytest.approx(1.0)
        running.stop()
        running.offered = right
        running.start()
        until(lambda: controller.connected)


def test_a_server_that_does_not_permit_where_the_robot_stands_is_not_obeyed(running):
    with remote(running) as controller:
        controller.observe(seen(5.0), 5.0)
        controller.plan(5.0)
        assert controller.action_at(5.0) == 5.0
        running.stop()
        assert controller.tick(5.1).held
        running.offered = offer(Telling(), safety=SafetyConfig(high=2.0))  # `reset` has it within the action's bounds
        running.offered.policy.action_spec = ActionSpec((1,), high=2.0, low=-2.0)
        controller._upkeep._connect.action = {
            **controller.action_spec,
            "low": -2.0,
            "high": 2.0,
        }  # as if it had been so before
        running.start()
        until(lambda: controller.connected)
        assert controller.tick(5.2).held
        assert controller.action_at(5.3) == 2.0  # within the rules that were told last
        until(lambda: controller.counts.lost >= 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage",
        pack({"type": "action", "id": 1}),
        pack({"type": "action", "id": 1, "action": np.array([np.nan]), "observed_s": None, "plan_start_s": None}),
        pack({"type": "action", "id": 1, "action": "up", "observed_s": 0, "plan_start_s": 0, "starved": 0}),
    ],
)
def test_a_server_that_says_nonsense_is_not_obeyed(answer):
    def nonsense(connection):
        connection.recv()
        connection.send(pack(WELCOME))
        for _ in connection:
            connection.send(answer)

    with serve(nonsense, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with RemoteController(url, patience_s=PATIENCE_S) as controller:
            assert controller.tick(0.0).action == 3.0
            assert controller.counts.lost == 1
        server.shutdown()
