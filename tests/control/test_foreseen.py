"""What a controller says is wanted next is what it wants next, if nothing else comes."""

import numpy as np
import pytest

from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.strategies import Chunking, Ensembling, RealTimeChunking
from diffusion_policy.control.timed import TimedController
from diffusion_policy_client.rest import Rest
from tests.control.clocks import STEP, Holding, Telling, seen

STRATEGIES = [Chunking(4), Ensembling(), RealTimeChunking(4)]


def strategy_name(strategy):
    return type(strategy).__name__


def running(strategy, early, chance, **rules):
    """Returns a controller after ticks that come `early` (parts of a step) after the stamps of observations."""
    safety = SafetyConfig(**rules)
    controller = TimedController(Holding(Tp=12), step_s=STEP, strategy=strategy, safety=safety)
    controller.reset(0, at=np.zeros(1, np.float32))
    for number in range(5):
        now = number * STEP
        stamp_s = now - early * STEP - chance.uniform(0, 0.05) * STEP
        controller.observe(seen(stamp_s), stamp_s)
        controller.plan(now)
        controller.action_at(now)
    return controller


@pytest.mark.parametrize("strategy", STRATEGIES, ids=strategy_name)
@pytest.mark.parametrize("early", [0.1, 0.3, 0.8])
def test_what_is_ahead_is_what_the_next_ticks_send(strategy, early):
    controller = running(strategy, early, np.random.default_rng(0), low=-1.0, high=0.65, stale_s=0.55)
    counts = controller.guard.counts.to_dict(), controller.counts.starved
    ahead = controller.ahead(20)
    assert (controller.guard.counts.to_dict(), controller.counts.starved) == counts
    assert ahead.start_s <= 4 * STEP < ahead.start_s + STEP
    np.testing.assert_array_equal(ahead.find(4 * STEP), controller.last_tick.action)
    times = STEP * np.arange(5, 4 + len(ahead.actions))
    said = [ahead.find(time_s) for time_s in times]
    np.testing.assert_array_equal(said, [controller.action_at(time_s) for time_s in times])
    assert len(said) >= 4
    assert controller.counts.starved == controller.guard.counts.stale == 0
    controller.action_at(times[-1] + STEP)  # the newest observation is too old, and the robot is held
    assert controller.guard.counts.stale == 1


@pytest.mark.parametrize("strategy", STRATEGIES, ids=strategy_name)
@pytest.mark.parametrize("early", [0.1, 0.5, 0.9])
def test_who_goes_on_by_it_and_keeps_the_rate_does_as_the_controller(strategy, early):
    controller = running(strategy, early, np.random.default_rng(0), rate=0.8)  # the time goes by at 1 a second
    infinite = np.full(1, np.inf)
    limits = {"low": -infinite, "high": infinite, "rate": controller.guard.rate, "elapsed_s": 2 * STEP}
    rest = Rest(
        {"action": {"shape": [1], "kind": "absolute", "low": None, "high": None}, "limits": limits, "step_s": STEP}
    )
    rest.sent(controller.last_tick.action, 4 * STEP)
    ahead = controller.ahead(5)
    for number in range(5, 8):
        sent = controller.action_at(number * STEP)
        assert sent < ahead.find(number * STEP)  # it goes after it, as fast as it may
        np.testing.assert_array_equal(rest.toward(ahead.find(number * STEP), number * STEP), sent)


def test_a_rule_that_holds_ends_it_only_where_it_is_broken():
    for rate, told in ((1.5, 5), (0.8, 1)):  # the time goes by at 1 a second
        controller = TimedController(Telling(), step_s=STEP, safety=SafetyConfig(rate=rate, on_rate="hold"))
        controller.reset(0, at=np.ones(1, np.float32))
        controller.observe(seen(1.0), 1.0)
        controller.plan(1.0)
        controller.action_at(1.05)
        assert len(controller.ahead(5).actions) == told, rate


def test_nothing_is_ahead_before_a_plan_behind_its_end_in_a_new_episode_and_while_stopped():
    controller = TimedController(Telling(), step_s=STEP, safe_action=np.array([7.0], np.float32))
    assert controller.ahead(3) is None
    controller.action_at(0.9)
    assert controller.ahead(3) is None
    controller.observe(seen(1.0), 1.0)
    controller.plan(1.0)
    controller.action_at(1.0)
    assert len(controller.ahead(3).actions) == 3
    assert len(controller.ahead(20).actions) == 7  # 1.0 to 1.6
    controller.guard.stopped = "a wall"
    assert controller.ahead(3) is None
    controller.guard.release()
    controller.action_at(1.6)
    assert len(controller.ahead(3).actions) == 1
    controller.action_at(1.7)
    assert controller.ahead(3) is None
    controller.observe(seen(2.0), 2.0)
    controller.plan(2.0)
    controller.action_at(2.0)
    controller.reset()
    assert controller.ahead(3) is None


def test_to_hear_that_what_was_said_was_sent_changes_nothing():
    controller = TimedController(Holding(Tp=12), step_s=STEP, strategy=RealTimeChunking(4, delay=2))
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    for number in range(4):
        controller.action_at(number * STEP)

    def known(now):
        controller.observe(seen(now), now)
        return controller.request(now).known.weight

    sent, now = controller.last_tick.action, 3 * STEP
    before = known(4 * STEP)
    controller.sent_instead(sent, now)
    np.testing.assert_array_equal(known(4 * STEP + 1e-6), before)
    controller.sent_instead(sent, now + 0.5 * STEP)  # as before, at a time at which another was planned
    assert known(4 * STEP + 2e-6).sum() < before.sum()
