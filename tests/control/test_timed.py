"""Control by the clock: each action is sent at its own time or not at all, whatever planning takes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_policy.config import ActionSpec
from diffusion_policy.control.plan import answers
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.strategies import Chunking, Ensembling, RealTimeChunking
from diffusion_policy.control.timed import TimedController
from diffusion_policy.errors import CheckpointError, ConfigError, ObservationError
from diffusion_policy.policies.info import CheckpointInfo
from tests.control.clocks import STEP, Holding, Telling, seen
from tests.policies.test_diffusion_policy import make_policy


def run(controller, ticks, delay=lambda tick: 0):
    """Runs the robot's loop by a simulated clock; a plan arrives `delay` ticks after it was asked for."""
    arriving, sent = [], []
    for tick in range(ticks):
        now = tick * STEP
        controller.observe(seen(now), now)
        if controller.is_due(now):
            request = controller.request(now)
            prediction = answers(controller.policy, [request])[0]
            arriving.append((tick + delay(tick), request, prediction))
        for due, request, prediction in list(arriving):
            if due <= tick:
                controller.accept(request, prediction, now)
                arriving.remove((due, request, prediction))
        try:
            sent.append(float(controller.action_at(now)[0]))
        except ObservationError:
            sent.append(None)
    return sent


def times(first, stop):
    return pytest.approx([tick * STEP for tick in range(first, stop)], abs=1e-5)


@pytest.mark.parametrize("strategy", [Chunking(4), Chunking(1), Ensembling(), RealTimeChunking(3, delay=2)])
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_every_action_is_that_of_its_time_with_any_delay_and_strategy(strategy, delay):
    controller = TimedController(Holding(), step_s=STEP, strategy=strategy, safe_action=np.array([-5.0]))
    sent = run(controller, 30, lambda tick: delay)
    assert sent[:delay] == [-5.0] * delay
    assert sent[delay:] == times(delay, 30)
    assert controller.counts.starved == delay
    assert controller.counts.expired == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_no_action_is_ever_sent_at_another_time_than_its_own(delays):
    controller = TimedController(Telling(), step_s=STEP, strategy=Chunking(2), safe_action=np.array([-5.0]))
    last = -5.0
    for tick, action in enumerate(run(controller, 40, lambda tick: delays[tick])):
        assert action == pytest.approx(tick * STEP, abs=1e-5) or action == last  # held
        last = action
    asked = controller.counts.accepted + controller.counts.expired + controller.counts.overtaken
    assert asked <= len(controller.policy.asked)


@pytest.mark.parametrize("took", [0.0, 0.03, 0.3, 9.0])
def test_the_first_plan_begins_when_it_is_there_since_the_robot_waited_for_it(took):
    controller = TimedController(Telling(), step_s=STEP)
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0, lambda: took)
    assert controller.counts.skipped == controller.counts.expired == 0
    assert [float(controller.action_at(took + tick * STEP)[0]) for tick in range(7)] == times(0, 7)
    plan = controller.newest_plan
    assert (plan.observed_s, plan.start_s, plan.ready_s) == (0.0, took, took)
    assert controller.age_s(took) == took
    assert not controller.is_due(took)
    for tick, due in ((3, False), (4, True)):  # steps after its first action
        controller.observe(seen(took + tick * STEP), took + tick * STEP)
        assert controller.is_due(took + tick * STEP) == due


def test_a_later_plan_and_one_that_the_robot_did_not_wait_for_begin_at_their_observation():
    controller = TimedController(Telling(), step_s=STEP, safe_action=np.array([-5.0]))
    controller.observe(seen(0.0), 0.0)
    assert controller.action_at(0.0) == -5.0
    controller.plan(0.0, lambda: 0.3)
    assert controller.action_at(0.3) == pytest.approx(0.3)
    controller.reset()
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0, lambda: 0.2)
    controller.observe(seen(0.2), 0.2)
    controller.plan(0.2, lambda: 0.4)
    assert controller.newest_plan.start_s == 0.2
    assert controller.action_at(0.4) == pytest.approx(0.4)
    controller.reset()
    controller.sent_instead(np.zeros(1), 0.0)
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0, lambda: 0.2)
    assert controller.newest_plan.start_s == 0.0


def test_past_actions_of_a_late_plan_are_dropped_and_counted():
    controller = TimedController(Telling(), step_s=STEP, safe_action=np.array([-5.0]))
    controller.observe(seen(0.0), 0.0)
    controller.action_at(0.0)
    request = controller.request(0.0)
    controller.accept(request, answers(controller.policy, [request])[0], 0.3)
    assert controller.counts.skipped == 3
    assert controller.action_at(0.3) == pytest.approx(0.3)
    assert controller.remaining(0.3) == 4  # of 7 from now on
    assert controller.age_s(0.3) == pytest.approx(0.3)


def test_plans_that_arrive_too_late_or_out_of_order_are_not_obeyed():
    controller = TimedController(Telling(), step_s=STEP)
    for now in (0.0, 0.1):
        controller.observe(seen(now), now)
    first, second = controller.request(0.0), controller.request(0.1)
    controller.accept(second, answers(controller.policy, [second])[0], 0.2)
    controller.accept(first, answers(controller.policy, [first])[0], 0.2)
    assert controller.counts.overtaken == 1
    assert controller.newest_plan.observed_s == 0.1
    third = controller.request(0.1)
    controller.accept(third, answers(controller.policy, [third])[0], 5.0)
    assert controller.counts.expired == 1


@pytest.mark.parametrize("asked_after", [0.0, 0.03, 0.09])
def test_an_action_is_for_the_time_of_the_observation_whenever_it_is_asked_for(asked_after):
    controller = TimedController(Telling(), step_s=STEP)
    for tick in range(20):
        now = tick * STEP
        controller.observe(seen(now), now)
        if controller.is_due(now + asked_after):
            controller.plan(now + asked_after)
            assert controller.age_s(now + asked_after) == pytest.approx(asked_after)
        assert controller.action_at(now + asked_after) == pytest.approx(now, abs=1e-5)


@pytest.mark.parametrize("hz", [10, 30, 50, 100])
def test_steps_are_counted_right_on_a_clock_of_seconds_since_1970(hz):
    step_s, begun = 1 / hz, 1.76e9 + 0.123
    controller = TimedController(Telling(), step_s=step_s, strategy=Chunking(3))
    due = []
    for tick in range(60):
        now = begun + tick * step_s
        controller.observe(seen(0.0), now)
        if controller.is_due(now):
            controller.plan(now)
            due.append(tick)
        assert controller.newest_plan.index(now) == tick % 3
    assert due == list(range(0, 60, 3))


def test_nothing_is_planned_without_a_newer_observation():
    controller = TimedController(Telling(), step_s=STEP, strategy=Chunking(2))
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    assert not controller.is_due(9.0)
    assert controller.request_if_due(9.0) is None


def test_an_answer_of_the_episode_before_is_not_taken():
    controller = TimedController(Telling(), step_s=STEP, safe_action=np.array([-5.0]))
    controller.observe(seen(100.0), 100.0)
    request = controller.request(100.0)
    controller.reset()
    controller.accept(request, answers(controller.policy, [request])[0], 100.2)
    assert controller.counts.foreign == 1
    assert controller.action_at(100.2) == -5.0
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    assert controller.action_at(0.1) == pytest.approx(0.1)


def test_real_time_chunking_is_told_what_was_sent_not_what_was_planned():
    rules = SafetyConfig(rate=0.1)  # a second: everything is slowed down
    controller = TimedController(Holding(), step_s=STEP, strategy=RealTimeChunking(3, delay=2), safety=rules)
    controller.reset(0, at=np.zeros(1))
    for tick in range(4):
        controller.observe(seen(5.0), tick * STEP)
        if controller.is_due(tick * STEP):
            request = controller.request(tick * STEP)
            controller.accept(request, answers(controller.policy, [request])[0], tick * STEP)
        controller.action_at(tick * STEP)
    assert controller.policy.known.weight[0, :3].tolist() == [
        0,
        1,
        1,
    ]  # the step before now was not executed as planned


def test_times_that_are_no_numbers_are_refused_everywhere():
    controller = TimedController(Telling(), step_s=STEP)
    controller.observe(seen(0.0), 0.0)
    request = controller.request(0.0)
    for call in (controller.action_at, controller.is_due, controller.request,
                 lambda time_s: controller.accept(request, np.zeros((8, 1)), time_s)):  # fmt: skip
        for time_s in (float("nan"), float("inf"), 1e308, -1e300):
            with pytest.raises(ObservationError, match="time must be finite"):
                call(time_s)


def test_answers_of_another_shape_or_without_numbers_are_refused():
    controller = TimedController(Telling(), step_s=STEP)
    controller.observe(seen(0.0), 0.0)
    request = controller.request(0.0)
    for wrong in (np.zeros((8, 3)), np.full((8, 1), np.nan), np.full((8, 1), np.inf)):
        with pytest.raises(CheckpointError, match="finite numbers as a plan"):
            controller.accept(request, wrong, 0.0)
    assert controller.newest_plan is None


def test_between_steps_the_action_of_the_running_step_is_sent():
    controller = TimedController(Telling(), step_s=STEP)
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    assert [float(controller.action_at(t)[0]) for t in (0.0, 0.05, 0.099, 0.1, 0.15)] == pytest.approx(
        [0.0, 0.0, 0.0, 0.1, 0.1]
    )


def test_without_a_plan_the_safe_action_is_sent_and_behind_its_end_the_last_one():
    controller = TimedController(Telling(), step_s=STEP, safe_action=np.array([-5.0]))
    assert controller.action_at(0.0) == -5.0
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    assert controller.action_at(0.6) == pytest.approx(0.6)
    assert controller.action_at(2.0) == pytest.approx(0.6)
    assert controller.counts.starved == 2
    with pytest.raises(ObservationError, match="no action to send yet"):
        TimedController(Telling(), step_s=STEP).action_at(0.0)


def test_same_seed_gives_the_same_noise_and_reset_begins_anew():
    drawn = []
    for _ in range(2):
        controller = TimedController(Telling(), step_s=STEP, seed=3)
        run(controller, 9)
        controller.reset(3)
        run(controller, 9)
        drawn.append([noise.tolist() for _, noise in controller.policy.asked])
    assert drawn[0] == drawn[1]
    assert drawn[0][:3] == drawn[0][3:]
    assert controller.counts.accepted == 3


def test_predictions_are_clipped_to_the_bounds_and_must_be_finite():
    policy = Telling()
    policy.action_spec = ActionSpec((1,), low=-0.2, high=0.2)
    controller = TimedController(policy, step_s=STEP)
    assert max(run(controller, 9)) == pytest.approx(0.2)
    with pytest.raises(ConfigError, match="within the action's bounds"):
        TimedController(policy, step_s=STEP, safe_action=np.ones(1))
    policy.predict = lambda obs, noise: type("Chunk", (), {"prediction": np.full((1, 8, 1), np.nan)})
    controller.observe(seen(1.0), 1.0)
    with pytest.raises(CheckpointError, match="not finite"):
        controller.plan(1.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"step_s": 0.0}, "step_s must be positive"),
        ({"step_s": STEP, "strategy": Chunking(8)}, r"every must be in \[1, 7\]"),
        ({"step_s": STEP, "strategy": RealTimeChunking(5, delay=8)}, r"delay must be in \[0, 7\]"),
        ({"step_s": STEP, "safe_action": np.zeros(2)}, "safe_action must be"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        TimedController(Telling(), **settings)


@pytest.mark.parametrize("strategy", ["chunking", "ensembling", "real_time"])
def test_controller_of_a_file_is_warm_and_plans_by_its_strategy(strategy, tmp_path):
    make_policy().save(tmp_path / "policy.pt")
    controller = TimedController.load(tmp_path / "policy.pt", step_s=STEP, strategy=strategy, delay=2, seed=0)
    obs = {"pos": np.zeros(2), "points": np.zeros((3, 2))}
    for tick in range(9):
        controller.observe(obs, tick * STEP)
        if controller.is_due(tick * STEP):
            controller.plan(tick * STEP)
        assert np.isfinite(controller.action_at(tick * STEP)).all()
    assert controller.counts.starved == 0


def test_rate_of_a_file_is_that_of_its_demonstrations_unless_said(tmp_path):
    policy = make_policy()
    policy.save(tmp_path / "silent.pt")
    with pytest.raises(ConfigError, match=r"silent\.pt does not tell the rate of its demonstrations; give step_s"):
        TimedController.load(tmp_path / "silent.pt")
    policy.info = CheckpointInfo(dataset={"provenance": {"control_hz": 20}})
    policy.save(tmp_path / "telling.pt")
    assert TimedController.load(tmp_path / "telling.pt").step_s == 0.05
    assert TimedController.load(tmp_path / "telling.pt", step_s=0.1).step_s == 0.1


def test_batched_answers_are_those_of_one_by_one():
    controller = TimedController(Telling(), step_s=STEP)
    requests = []
    for now in (0.0, 0.1, 0.2):
        controller.observe(seen(now), now)
        requests.append(controller.request(now))
    together = answers(controller.policy, requests, batch_size=2)
    assert [len(obs["now"]) for obs, _ in controller.policy.asked] == [2, 2]
    assert np.array_equal(np.stack(together), np.stack([answers(controller.policy, [one])[0] for one in requests]))
