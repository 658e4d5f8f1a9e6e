"""The robot's side: it acts as a local controller would, is safe without answers, and finds the server again."""

import threading
import time

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.timed import TimedController
from diffusion_policy_client import (
    MismatchError,
    ObservationError,
    PolicyError,
)
from tests.client.robots import remote, until
from tests.control.clocks import STEP, Telling, seen
from tests.policies.test_diffusion_policy import make_policy
from tests.serving.running import PATIENCE_S, Running, offer


def test_actions_of_the_server_are_those_of_a_local_controller():
    policy, rng = make_policy(), np.random.default_rng(0)
    rules = {"safety": SafetyConfig(rate=300.0), "safe_action": np.array([200.0, 200.0], np.float32)}
    with Running(offer(policy, **rules)) as running, remote(running) as there:
        here = TimedController(policy, step_s=STEP, strategy=running.offered.strategy, **rules)
        for episode in range(2):
            at = rng.uniform(100, 300, 2).astype(np.float32)
            for controller in (here, there):
                controller.reset(episode, at)
            for number in range(12):
                now = number * STEP
                obs = {"pos": rng.uniform(0, 400, 2), "points": rng.uniform(0, 500, (3, 2))}
                for controller in (here, there):
                    controller.observe(obs, now)
                if here.is_due(now):
                    here.plan(now)
                    there.plan(now)
                for moment in (now, now + 0.6 * STEP):
                    assert np.array_equal(here.action_at(moment), there.action_at(moment))
        assert there.counts.held == there.counts.late == 0


def test_pictures_and_wider_numbers_arrive_as_the_policy_reads_them():
    policy = Telling()
    policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (4, 5, 3))}
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    with Running(offer(policy)) as running, remote(running) as controller:
        controller.observe({"now": np.array([1]), "eye": picture, "more": "not sent"}, 1.0)
        controller.plan(1.0)
        obs, _ = policy.asked[-1]
        assert np.array_equal(obs["eye"][0, -1], picture)
        with pytest.raises(ObservationError, match=r"'eye' must be \(4, 5, 3\) uint8"):
            controller.observe({"now": [1.0], "eye": picture.astype(np.float32)}, 1.1)
        with pytest.raises(ObservationError, match=r"expected an observation with now low_dim \(1,\)"):
            controller.observe({"eye": picture}, 1.1)
        with pytest.raises(ObservationError, match="finite"):
            controller.observe({"now": [1.0], "eye": picture}, float("nan"))


def test_what_is_not_possible_is_raised_as_a_controller_does(running):
    with remote(running) as controller:
        with pytest.raises(ObservationError, match="no action to send yet"):
            controller.tick(0.0)
        with pytest.raises(ObservationError, match="nothing was observed"):
            controller.plan(0.0)
        with pytest.raises(MismatchError):
            controller.reset(at=np.zeros(4))
        running.offered.policy.predict = lambda obs, noise: 1 / 0
        controller.observe(seen(0.0), 0.0)
        with pytest.raises(PolicyError, match="division by zero"):
            controller.plan(0.0)
        assert controller.connected


def test_robot_is_held_while_the_server_is_away_and_goes_on_when_it_is_back(running):
    with remote(running) as controller:
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        assert controller.action_at(1.1) == pytest.approx(1.0)  # for which the robot waited
        assert controller.action_at(1.2) == pytest.approx(1.1)
        running.stop()
        for tick in range(3, 31):
            controller.observe(seen(1 + tick * STEP), 1 + tick * STEP)
            said = controller.tick(1 + tick * STEP)
            assert said.action == pytest.approx(1.1)
            assert said.held
            assert said.stopped is None
        assert controller.counts.lost == 1
        assert controller.counts.unsent >= 27
        assert not controller.connected
        until(lambda: "no server" in (controller.error or ""))
        running.start()
        until(lambda: controller.connected)
        assert controller.action_at(5.0) == pytest.approx(1.1)  # where it stands is known to the new server, too
        controller.observe(seen(5.0), 5.0)
        controller.plan(5.0)
        assert controller.action_at(5.1) == pytest.approx(5.1)
        assert controller.counts.reconnected == 1
        assert controller.error is None


def test_robot_that_is_to_stop_goes_slowly_to_the_safe_action_until_it_is_released():
    rules = {"safety": SafetyConfig(rate=1.0), "safe_action": np.array([0.0], np.float32)}
    with Running(offer(Telling(), **rules)) as running, remote(running, on_lost="stop", lost_s=0.25) as controller:
        controller.reset(at=np.array([0.9], np.float32))
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        assert controller.action_at(1.0) == pytest.approx(1.0)
        running.stop()
        sent = [controller.action_at(1.0 + tick * STEP)[0] for tick in range(1, 6)]
        assert sent == pytest.approx([1.0, 1.0, 0.9, 0.8, 0.7])
        assert "did not answer for 0.3 s" in controller.stopped
        running.start()
        until(lambda: controller.connected)
        said = controller.tick(1.6)
        assert not said.held
        assert said.action == pytest.approx(0.6)  # the new server goes on stopping, from where the robot stands
        assert "did not answer" in said.stopped
        controller.reset()
        assert "did not answer" in controller.tick(1.7).stopped
        controller.release()
        assert controller.tick(1.8).stopped is None


def test_a_reset_forgets_no_action_unless_the_robot_was_moved(running):
    with remote(running) as controller:
        for moved in (False, True):
            controller.observe(seen(1.0), 1.0)
            controller.plan(1.0)
            assert controller.action_at(1.0) == 1.0
            controller.reset(moved=moved)
            if moved:
                with pytest.raises(ObservationError, match="no action to send yet; observe"):
                    controller.tick(2.0)  # the server says it
            else:
                assert controller.tick(2.0).starved
        controller.observe(seen(1.0), 3.0)
        controller.plan(3.0)
        assert controller.action_at(3.0) == 1.0
        controller.reset()
        running.stop()
        assert controller.action_at(4.0) == 1.0
        controller.reset(moved=True)
        with pytest.raises(ObservationError, match="the server does not answer"):
            controller.tick(5.0)


def test_a_robot_beyond_its_limits_is_led_back_with_and_without_answers():
    rules = {"safety": SafetyConfig(low=-1.0, high=1.0, rate=1.0)}
    with Running(offer(Telling(), **rules)) as running, remote(running) as controller:
        controller.reset(at=np.array([1.35], np.float32))
        controller.observe(seen(5.0), 1.0)
        controller.plan(1.0)
        sent = [controller.tick(1.0 + number * STEP) for number in range(2)]
        running.stop()
        sent += [controller.tick(1.0 + number * STEP) for number in range(2, 5)]
        assert [tick.action[0] for tick in sent] == pytest.approx([1.25, 1.15, 1.05, 1.0, 1.0])
        assert [tick.held for tick in sent] == [False, False, True, True, True]
        assert controller.counts.lost == 1


def test_nothing_is_sent_again_where_actions_are_changes():
    policy = Telling()
    policy.action_spec = ActionSpec((1,), kind="delta")
    with Running(offer(policy)) as running, remote(running) as controller:
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        assert controller.action_at(1.1) == pytest.approx(1.0)  # for which the robot waited
        assert controller.action_at(1.2) == pytest.approx(1.1)
        running.stop()
        assert controller.action_at(1.3) == 0.0


def test_an_answer_that_is_late_is_dropped_and_rates_count_from_what_was_sent():
    rules = {"safety": SafetyConfig(rate=1.0)}
    with Running(offer(Telling(), **rules)) as running, remote(running) as controller:
        controller.reset(at=np.array([1.0], np.float32))
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        assert controller.action_at(1.0) == pytest.approx(1.0)
        gate, take = threading.Event(), running._loop.call_soon_threadsafe
        take(gate.wait, PATIENCE_S)  # the server's loop hangs
        controller._patience_s = 0.05
        assert controller.tick(1.3).held
        gate.set()
        controller._patience_s = PATIENCE_S
        controller.observe(seen(9.0), 1.4)
        controller.plan(1.4)
        assert controller.counts.late == 1  # it said 1.3, which nobody sent
        assert controller.action_at(1.4) == pytest.approx(1.1)  # 0.1 s after 1.0 was sent, at a rate of 1
        assert controller.connected


def test_a_server_that_hangs_delays_no_tick_beyond_patience(running):
    with remote(running, patience_s=0.2) as controller:
        until(lambda: _planned(controller))
        gate = threading.Event()
        running._loop.call_soon_threadsafe(gate.wait, PATIENCE_S)
        took = []
        for number in range(2, 9):
            begun = time.monotonic()
            assert controller.tick(1 + number * STEP).held
            took.append(time.monotonic() - begun)
        assert sorted(took)[3] < 2 * 0.2  # most, since the machine may do something else now and then
        gate.set()


def _planned(controller):
    controller.observe(seen(1.0), 1.0)
    controller.plan(1.0)
    return not controller.tick(1.0).held


def test_server_that_takes_nothing_loses_its_connection_and_not_the_robot(running):
    running.offered.policy.obs_spec = {"now": ObsField("low_dim", (1,)), "eye": ObsField("rgb", (1000, 1000, 3))}
    obs = {**seen(1.0), "eye": np.zeros((1000, 1000, 3), np.uint8)}
    with Running(running.offered) as large, remote(large, patience_s=0.2) as controller:
        gate = threading.Event()
        large._loop.call_soon_threadsafe(gate.wait, PATIENCE_S)
        ticks = iter(range(10**9))
        until(lambda: (controller.observe(obs, 1 + next(ticks) * STEP), controller.counts.lost)[1])
        assert controller.counts.lost == 1
        gate.set()
        until(lambda: controller.connected)


def test_a_robot_that_goes_leaves_no_client_and_no_thread_behind(running):
    before = set(threading.enumerate())
    with remote(running) as controller:
        assert running.clients == 1
        controller.close()
        controller.close()
        until(lambda: running.clients == 0)
        assert controller.counts.lost == 0
    until(lambda: set(threading.enumerate()) <= before)
