"""Rules of safety: whatever comes in and whatever is planned, what goes out is finite and permitted."""

import contextlib

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.control.guard import Guard
from diffusion_policy.control.plan import answers
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.strategies import Chunking
from diffusion_policy.control.timed import TimedController
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.chunk import ActionChunk
from tests.control.clocks import STEP, Telling, seen

OBS = {"now": ObsField("low_dim", (1,))}


def guard(safe=None, spec=ActionSpec((2,)), **rules):  # noqa: B008  it is frozen
    return Guard(SafetyConfig(**rules), OBS, spec, safe)


def vector(*values):
    return np.array(values, np.float32)


def permitted(rules, action, last=None, age_s=0.0, elapsed_s=1.0):
    wanted = None if action is None else vector(*action)
    return rules.permitted(wanted, None if last is None else vector(*last), age_s, elapsed_s).tolist()


def test_without_rules_actions_are_what_they_were():
    assert permitted(guard(), (5, -7), (0, 0)) == [5, -7]


def test_the_tighter_of_rule_and_bound_holds_in_each_dimension():
    rules = guard(spec=ActionSpec((2,), low=(-1, -1), high=(1, 1)), low=-2, high=(0.5, 3))
    assert permitted(rules, (9, 9)) == [0.5, 1]
    assert permitted(rules, (-9, -9)) == [-1, -1]
    assert rules.counts.limit == 2


def test_rate_limits_each_dimension_by_itself():
    rules = guard(rate=(0.5, 2))
    assert permitted(rules, (3, 1), (0, 0)) == [0.5, 1]
    assert permitted(rules, (-3, -3), (0, 0)) == [-0.5, -2]
    assert permitted(rules, (0.5, 2), (0, 0)) == [0.5, 2]
    assert rules.counts.rate == 2


def test_rate_is_of_a_second_however_often_it_is_asked():
    rules, last = guard(rate=20.0), (0, 0)
    for _ in range(100):
        last = permitted(rules, (1000, 0), last, elapsed_s=1e-4)
    assert last[0] == pytest.approx(0.2, rel=1e-3)
    assert permitted(rules, (1000, 0), (0, 0), elapsed_s=-1.0) == [0, 0]


def test_a_ramp_at_exactly_its_rate_is_not_too_fast():
    rules, last = guard(rate=0.1, on_rate="stop"), (100, 0)
    for step in range(1, 200):
        last = permitted(rules, (np.float32(100 + 0.1 * step), 0), last)
    assert rules.stopped is None


def test_limits_hold_in_the_precision_of_actions():
    rules = guard(low=-0.1, high=(0.1, 2.9))
    high = permitted(rules, (9, 9))
    assert high[0] <= 0.1
    assert high[1] <= 2.9
    assert high == pytest.approx([0.1, 2.9])
    assert permitted(rules, (-9, -9))[0] >= -0.1


def test_actions_and_safe_actions_at_their_bounds_break_no_rule():
    policy = Telling()
    policy.action_spec = ActionSpec((1,), low=-0.1, high=0.1)  # neither is a float32
    rules = SafetyConfig(on_limit="stop")
    controller = TimedController(policy, step_s=STEP, safety=rules, safe_action=vector(0.1))
    controller.observe(seen(5.0), 0.0)
    controller.plan(0.0)
    assert controller.action_at(0.0) == pytest.approx(0.1)
    assert controller.guard.stopped is None
    assert controller.guard.counts.limit == 0


def test_the_first_action_keeps_the_rules_too():
    for rules in (guard(stale_s=0.3), guard(on_limit="hold", high=1.0)):
        with pytest.raises(ObservationError, match="no action to send yet"):
            permitted(rules, (5, 0), None, age_s=9.0)
    safe = guard(safe=vector(0.1, 0), stale_s=0.3)
    assert permitted(safe, (5, 0), None, age_s=9.0) == pytest.approx([0.1, 0])


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


@pytest.mark.parametrize(("rule", "counter"), [("on_limit", "limit"), ("on_rate", "rate")])
def test_hold_sends_the_last_action_and_goes_on_when_all_is_well(rule, counter):
    rules = guard(high=1.0, rate=1.0, **{rule: "hold"})
    wanted = (9, 0) if rule == "on_limit" else (-5, 0)
    assert permitted(rules, wanted, (0.5, 0)) == [0.5, 0]
    assert permitted(rules, (0.6, 0), (0.5, 0)) == pytest.approx([0.6, 0])
    assert getattr(rules.counts, counter) == 1


def test_stop_lasts_until_it_is_released_and_says_why():
    rules = guard(safe=vector(0.1, 0.1), high=1.0, on_limit="stop")
    assert permitted(rules, (9, 0), (0.5, 0)) == pytest.approx([0.1, 0.1])
    assert rules.stopped == "an action was beyond its limits"
    assert permitted(rules, (0.6, 0), (0.5, 0)) == pytest.approx([0.1, 0.1])
    rules.release()
    assert permitted(rules, (0.6, 0), (0.5, 0)) == pytest.approx([0.6, 0])
    assert rules.counts.stopped == 2


def test_the_way_to_the_safe_action_keeps_the_rate():
    rules = guard(safe=vector(0, 0), rate=0.5, high=2.0, on_limit="stop")
    assert permitted(rules, (9, 0), (2, 0)) == [1.5, 0]
    assert permitted(rules, (9, 0), (1.5, 0)) == [1.0, 0]
    assert permitted(rules, (9, 0), (0.25, 0)) == [0, 0]


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


@pytest.mark.parametrize(("reaction", "expected"), [("count", [3, 3]), ("hold", [1, 1]), ("stop", [1, 1])])
def test_stale_observations(reaction, expected):
    rules = guard(stale_s=0.5, on_stale=reaction)
    assert permitted(rules, (3, 3), (1, 1), age_s=0.6) == expected
    assert (rules.stopped is not None) == (reaction == "stop")
    assert rules.counts.stale == 1


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


@pytest.mark.parametrize(("reaction", "taken"), [("count", True), ("hold", False), ("stop", False)])
def test_observations_unlike_any_of_training(reaction, taken):
    rules = guard(observed={"now": (0.0, 1.0)}, on_range=reaction)
    assert rules.admits({"now": vector(0.5)})
    assert rules.admits({"now": vector(1.0)})
    anything = guard(observed={"now": (-np.inf, np.inf)}, on_range=reaction)
    assert anything.admits({"now": vector(1e9)})
    one_sided = guard(observed={"now": (-np.inf, 1.0)}, on_range=reaction)
    assert one_sided.admits({"now": vector(1e9)}) == taken
    assert rules.admits({"now": vector(1.5)}) == taken
    assert rules.counts.range == 1
    assert (rules.stopped is not None) == (reaction == "stop")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"low": 2, "high": 1}, "low 2 is above high 1"),
        ({"low": np.inf}, "safety.low must be numbers that permit something"),
        ({"observed": {"now": (np.nan, 1)}}, "safety.observed.now must be numbers"),
        ({"observed": {"now": (1, 0)}}, "safety.observed.now: low"),
        ({"low": (1, 2, 3)}, r"safety.low: expected a number, or \(2,\) of them"),
        ({"high": np.nan}, "safety.high must be numbers"),
        ({"rate": -1}, "safety.rate must be 0 or more"),
        ({"observed": {"then": (0, 1)}}, "no observation 'then', known: now"),
        ({"observed": {"now": (0, (1, 2))}}, "safety.observed.now"),
        ({"on_limit": "count"}, "safety.on_limit: expected clip, hold, stop"),
        ({"on_nan": "clip"}, "safety.on_nan: expected count, hold, stop"),
        ({"stale_s": 0}, "safety.stale_s must be positive"),
        ({"safe": vector(5, 5), "high": 1}, "safe_action must be within the limits"),
        ({"spec": ActionSpec((2,), kind="delta"), "low": (-1, 0.5)}, "must permit 0, which holds the robot"),
        ({"spec": ActionSpec((2,), low=-2, high=-1, kind="delta")}, "must permit 0, which holds the robot"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, says):
    with pytest.raises(ConfigError, match=says):
        guard(**rules)


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
