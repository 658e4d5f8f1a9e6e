"""Each rule of safety by itself: what an action becomes, and what is counted."""

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.control.guard import Guard
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.timed import TimedController
from diffusion_policy.errors import ConfigError, ObservationError
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


@pytest.mark.parametrize(("reaction", "expected"), [("count", [3, 3]), ("hold", [1, 1]), ("stop", [1, 1])])
def test_stale_observations(reaction, expected):
    rules = guard(stale_s=0.5, on_stale=reaction)
    assert permitted(rules, (3, 3), (1, 1), age_s=0.6) == expected
    assert (rules.stopped is not None) == (reaction == "stop")
    assert rules.counts.stale == 1


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


@pytest.mark.parametrize("kind", ["absolute", "delta"])
@pytest.mark.parametrize("on_limit", ["clip", "hold", "stop"])
@pytest.mark.parametrize("on_rate", ["clip", "hold", "stop"])
@pytest.mark.parametrize("on_stale", ["count", "hold", "stop"])
def test_what_is_foreseen_becomes_what_is_permitted_and_counts_nothing(kind, on_limit, on_rate, on_stale):
    chance, whole, short = np.random.default_rng(0), 0, 0
    rules = SafetyConfig(
        low=[-1.0, -2.0], high=1.5, rate=[3.0, np.inf], stale_s=0.55, on_limit=on_limit, on_rate=on_rate,
        on_stale=on_stale,
    )  # fmt: skip
    for _ in range(60):
        guard, plain = (Guard(each, {}, ActionSpec((2,), kind=kind)) for each in (rules, SafetyConfig(rate=rules.rate)))
        wanted = np.cumsum(chance.normal(size=(8, 2)) * chance.choice([0.02, 0.3]), axis=0).astype(np.float32)
        last = None if chance.random() < 0.2 else (0.1 * chance.normal(size=2)).astype(np.float32)
        ages_s = chance.choice([-1.0, 0.0]) + np.arange(1, 9) * STEP
        said = guard.foreseen(wanted, last, ages_s, STEP)
        assert sum(guard.counts.to_dict().values()) == 0
        assert guard.stopped is None
        for number, action in enumerate(said):
            sent = guard.permitted(wanted[number], last, ages_s[number], STEP)
            np.testing.assert_array_equal(plain.permitted(action, last, 0.0, STEP), sent)  # by who keeps rates alone
            last = sent
        assert guard.stopped is None
        assert guard.counts.stale == 0 or on_stale == "count"
        whole += len(said) == 8
        short += len(said) < 8
        if len(said) < 8:  # then it is held or stopped, and not before
            found = guard.permitted(wanted[len(said)], last, ages_s[len(said)], STEP)
            held = np.zeros(2) if kind == "delta" else last
            assert last is None or np.array_equal(found, held)
    assert whole
    assert short or (on_limit, on_rate, on_stale) == ("clip", "clip", "count")


def test_nothing_is_foreseen_of_a_robot_that_is_stopped():
    guard = Guard(SafetyConfig(), {}, ActionSpec((1,)))
    guard.stopped = "a wall"
    assert len(guard.foreseen(np.zeros((3, 1), np.float32), None, np.zeros(3), STEP)) == 0
