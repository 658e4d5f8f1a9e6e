"""Rules of safety in control: whatever comes in and whatever is planned, what goes out is finite and permitted."""

import contextlib

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec
from diffusion_policy.control.plan import answers
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.strategies import Chunking
from diffusion_policy.control.timed import TimedController
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.chunk import ActionChunk
from tests.control.clocks import STEP, Telling, seen
from tests.control.test_guard import guard, permitted, vector


def test_a_stop_outlives_its_episode_and_rates_count_from_where_the_robot_is():
    rules = SafetyConfig(on_nan="stop", rate=1.0)
    controller = TimedController(Telling(), step_s=STEP, safety=rules, safe_action=vector(0))
    kept = controller.guard
    controller.observe({"now": vector(np.nan)}, 0.0)
    controller.reset(0, at=vector(2))
    controller.observe(seen(5.0), 0.0)
    controller.plan(0.0)
    assert controller.guard is kept
    assert controller.action_at(0.0) == pytest.approx(1.9)  # to the safe action, at its rate
    controller.guard.release()
    assert controller.action_at(0.1) == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="at must be"):
        controller.reset(at=vector(1, 2))


def beyond(settings, at=7.0, kind="absolute", **more):
    """Returns a controller whose limits are narrower than the action's bounds, and a robot beyond them."""
    policy = Telling()
    policy.action_spec = ActionSpec((1,), low=-10.0, high=10.0, kind=kind)
    controller = TimedController(policy, step_s=STEP, safety=SafetyConfig(low=-1.0, high=1.0, **settings), **more)
    controller.reset(at=vector(at))
    return controller


@pytest.mark.parametrize("settings", [{}, {"on_limit": "hold"}, {"on_nan": "stop"}])
@pytest.mark.parametrize("kind", ["absolute", "delta"])
def test_a_robot_beyond_its_limits_is_never_held_there(settings, kind):
    controller = beyond(settings, kind=kind)
    controller.observe({"now": vector(np.nan)}, 0.0)
    for tick in range(3):
        assert controller.action_at(tick * STEP) == (1.0 if kind == "absolute" else 0.0)
    controller.sent_instead(vector(-9), 3 * STEP)
    assert controller.action_at(4 * STEP) == (-1.0 if kind == "absolute" else 0.0)


@pytest.mark.parametrize("settings", [{}, {"on_rate": "hold"}, {"on_rate": "stop"}, {"on_nan": "stop"}])
def test_a_robot_beyond_its_limits_is_brought_back_at_its_rate(settings):
    controller = beyond({"rate": 1.0, **settings}, at=1.25)
    controller.observe(seen(5.0), 0.0)
    controller.plan(0.0)
    controller.observe({"now": vector(np.nan)}, 0.0)
    assert [float(controller.action_at(tick * STEP)[0]) for tick in range(4)] == pytest.approx([1.15, 1.05, 1, 1])


def test_rates_count_over_an_episodes_end_unless_the_robot_was_moved():
    controller = TimedController(Telling(), step_s=STEP, safety=SafetyConfig(rate=1.0))
    for begins, wanted in ((0.0, 5.0), (10.0, -5.0)):
        controller.observe(seen(wanted), begins)
        controller.plan(begins)
        sent = controller.action_at(begins)
        controller.reset()
        assert controller.action_at(begins + STEP) == sent  # and is held there until there is a plan
        controller.reset()
    assert sent == pytest.approx(4.9)
    controller.reset(moved=True)
    controller.observe(seen(-5.0), 20.0)
    controller.plan(20.0)
    assert controller.action_at(20.0) == pytest.approx(-5.0)


@pytest.mark.parametrize("pause_s", [0.3, 30.0, 1e9])
def test_a_pause_of_the_loop_gives_no_licence_for_a_jump(pause_s):
    controller = TimedController(Telling(), step_s=STEP, safety=SafetyConfig(rate=1.0))
    for now, wanted in ((0.0, 0.0), (pause_s, 100.0)):
        controller.observe(seen(wanted), now)
        controller.plan(now)
        sent = controller.action_at(now)
    assert sent == pytest.approx(2 * STEP)
    assert controller.guard.counts.rate == 1


def test_one_lost_tick_of_a_ramp_at_its_rate_breaks_no_rule():
    controller = TimedController(Telling(), step_s=STEP, safety=SafetyConfig(rate=1.0, on_rate="stop"))
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    assert [float(controller.action_at(tick * STEP)[0]) for tick in (0, 1, 3, 4)] == pytest.approx([0, 0.1, 0.3, 0.4])
    assert controller.guard.stopped is None


@pytest.mark.parametrize("safe", [None, vector(0)])
def test_nobody_is_stopped_for_want_of_a_plan_before_the_first_of_an_episode(safe):
    rules = SafetyConfig(on_starved="stop")
    controller = TimedController(Telling(), step_s=STEP, safety=rules, safe_action=safe)
    for begins in (0.0, 10.0):
        for tick in range(3):
            with contextlib.suppress(ObservationError):
                controller.action_at(begins + tick * STEP)
        assert controller.guard.stopped is None
        controller.observe(seen(begins), begins + 3 * STEP)
        controller.plan(begins + 3 * STEP)
        assert controller.action_at(begins + 3 * STEP) == pytest.approx(begins)
        controller.reset()
    controller.observe(seen(0.0), 20.0)
    controller.plan(20.0)
    controller.action_at(29.0)
    assert controller.guard.stopped == "no plan had an action"


def test_a_robot_without_plans_is_held_or_stopped():
    for reaction in ("hold", "stop"):
        rules = SafetyConfig(on_starved=reaction)
        controller = TimedController(Telling(), step_s=STEP, safety=rules, safe_action=vector(0))
        controller.observe(seen(0.0), 0.0)
        controller.plan(0.0)
        assert controller.action_at(0.6) == pytest.approx(0.6)
        assert controller.action_at(9.0) == pytest.approx(0.6 if reaction == "hold" else 0.0)
        assert (controller.guard.stopped is not None) == (reaction == "stop")


def test_robots_that_are_told_changes_are_held_by_none():
    rules = guard(spec=ActionSpec((2,), kind="delta"), stale_s=0.5, rate=0.1)
    assert permitted(rules, (3, 3), (1, 1), age_s=9.0) == [0, 0]
    policy = Telling()
    policy.action_spec = ActionSpec((1,), kind="delta")
    controller = TimedController(policy, step_s=STEP)
    controller.observe(seen(0.3), 0.0)
    controller.plan(0.0)
    assert controller.action_at(0.0) == pytest.approx(0.3)
    assert controller.action_at(9.0) == 0.0


@pytest.mark.parametrize("reaction", ["count", "hold", "stop"])
def test_observations_that_are_not_finite_are_never_taken(reaction):
    controller = TimedController(Telling(), step_s=STEP, safety=SafetyConfig(on_nan=reaction))
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    controller.observe({"now": vector(np.nan)}, 0.1)
    assert controller.history.newest(0.1)[0] == 0.0
    assert controller.guard.counts.nan == 1
    assert (controller.guard.stopped is not None) == (reaction == "stop")
    with pytest.raises(ObservationError, match="lacks now"):
        controller.observe({}, 0.1)


class Wild(Telling):
    """Predicts anything but NaN, which the controller refuses before it becomes a plan."""

    def __init__(self, chance):
        super().__init__()
        self.chance, self.action_spec = chance, ActionSpec((2,))

    def predict(self, obs, noise):
        prediction = (self.chance.standard_cauchy((1, 8, 2)) * 10.0 ** self.chance.integers(-3, 30)).astype(np.float32)
        return ActionChunk.of(prediction, self.horizons)


def strange(chance, time_s):
    """Returns an observation: usually fine, sometimes anything."""
    kinds = [seen(time_s)] * 8 + [
        {"now": vector(np.nan)}, {"now": vector(np.inf)}, {"now": vector(1e38)}, {}, {"now": "text"},
        {"now": np.zeros((2, 3))}, None, {"now": np.array([1], np.int64)}, seen(-time_s),
    ]  # fmt: skip
    return kinds[chance.integers(len(kinds))]


@pytest.mark.parametrize(
    ("reaction", "kind", "rated"),
    [("clip", "absolute", True), ("hold", "absolute", True), ("clip", "delta", True), ("clip", "absolute", False)],
)
def test_ten_thousand_fuzzed_steps_send_nothing_forbidden(reaction, kind, rated):
    """Limits are narrower than bounds, and robots are said to stand anywhere within the bounds."""
    chance = np.random.default_rng(0)
    low, high, rate = vector(-1.1, -2.3), vector(0.9, 3.7), vector(4.7, 2.3)
    rules = SafetyConfig(low, high, rate if rated else None, stale_s=0.35, on_limit=reaction, on_rate=reaction)
    policy = Wild(chance)
    policy.action_spec = ActionSpec((2,), low=-10.0, high=10.0, kind=kind)
    controller = TimedController(policy, step_s=STEP, strategy=Chunking(3), safety=rules, safe_action=vector(0, 0))
    last, now, waiting, ways_back = controller.action_at(0.0), 0.0, [], 0
    for tick in range(1, 10_001):
        now = tick * STEP
        with contextlib.suppress(ObservationError):
            controller.observe(strange(chance, now), now + chance.normal() * STEP)
        request = controller.request_if_due(now)
        if request is not None:
            waiting.append((tick + chance.integers(0, 12), request, answers(controller.policy, [request])[0]))
        for due in [each for each in waiting if each[0] <= tick]:
            controller.accept(due[1], due[2], now)
            waiting.remove(due)
        action = controller.action_at(now)
        assert np.isfinite(action).all()
        stood_out = kind == "absolute" and rated  # who stands beyond the limits may be on the way back, at the rate
        assert (action >= (np.minimum(low, last + rate * STEP - 1e-5) if stood_out else low)).all()
        assert (action <= (np.maximum(high, last - rate * STEP + 1e-5) if stood_out else high)).all()
        ways_back += bool(((action < low) | (action > high)).any())
        held = kind == "delta"  # no change at all is always permitted, and one says nothing about the next
        assert held or not rated or (np.abs(action - last) <= rate * STEP + 1e-5).all()
        last = action
        if tick % 97 == 0:
            place = chance.uniform(-10, 10, 2).astype(np.float32)
            if tick % 2:
                controller.reset(tick, at=place)
            else:
                controller.sent_instead(place, now)
            last = place
        elif tick % 89 == 0:
            controller.reset(tick)
    assert controller.guard.counts.to_dict().keys() == {"limit", "rate", "range", "nan", "stale", "stopped"}
    assert controller.episode > 100
    assert (ways_back > 100) == (kind == "absolute" and rated)
