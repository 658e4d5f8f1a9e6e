"""Planning in a thread: ticks never wait for it, and learn when it ended."""

import threading
import time

import numpy as np
import pytest

from diffusion_policy.control.planner import Planner
from diffusion_policy.control.strategies import Chunking
from diffusion_policy.control.timed import TimedController
from tests.control.clocks import STEP, Clock, Telling, seen

PATIENCE_S = 30.0


class Gated(Telling):
    """Answers when it is let."""

    def __init__(self):
        super().__init__()
        self.let, self.begun = threading.Semaphore(0), threading.Semaphore(0)

    def predict(self, obs, noise):
        self.begun.release()
        assert self.let.acquire(timeout=PATIENCE_S)
        return super().predict(obs, noise)


def until(true):
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_the_running_chunk_plays_while_the_next_is_computed():
    policy, clock = Gated(), Clock()
    controller = TimedController(policy, step_s=STEP, strategy=Chunking(2))
    controller.observe(seen(0.0), 0.0)
    with Planner(controller, clock) as planner:
        policy.let.release()
        until(lambda: controller.newest_plan is not None)
        clock.now = 2 * STEP
        controller.observe(seen(clock.now), clock.now)
        for _ in range(2):  # the first plan, and the second that nobody lets go on
            assert policy.begun.acquire(timeout=PATIENCE_S)
        for tick in (2, 3, 4):
            clock.now = tick * STEP
            assert controller.action_at(clock.now) == pytest.approx(tick * STEP)
        policy.let.release()
        until(lambda: controller.counts.accepted == 2)
        assert controller.newest_plan.start_s == pytest.approx(2 * STEP)
        assert controller.counts.skipped == 2
        policy.let.release(9)
    assert not planner.is_running
    assert planner.error is None


def test_a_policy_that_raises_ends_planning_and_not_the_ticks():
    policy, clock = Telling(), Clock()
    controller = TimedController(policy, step_s=STEP, strategy=Chunking(2))
    controller.observe(seen(0.0), 0.0)
    controller.plan(0.0)
    policy.predict = lambda obs, noise: 1 / 0
    clock.now = 5 * STEP
    controller.observe(seen(clock.now), clock.now)
    with Planner(controller, clock) as planner:
        until(lambda: planner.error is not None)
        assert isinstance(planner.error, ZeroDivisionError)
        assert controller.action_at(clock.now) == pytest.approx(5 * STEP)
        assert controller.action_at(99.0) == pytest.approx(5 * STEP)  # held


def test_nothing_is_planned_before_something_is_seen():
    policy = Telling()
    with Planner(TimedController(policy, step_s=STEP), Clock()):
        time.sleep(0.05)
    assert policy.asked == []


def test_a_first_observation_after_the_question_or_a_reset_ends_no_planning():
    policy, clock = Telling(), Clock()
    controller = TimedController(policy, step_s=STEP, strategy=Chunking(2))
    controller.observe(seen(1.0), 1.0)  # later than the planner's now
    with Planner(controller, clock) as planner:
        time.sleep(0.02)
        assert planner.is_running
        assert policy.asked == []
        controller.reset()
        clock.now = 2.0
        controller.observe(seen(2.0), 2.0)
        until(lambda: controller.newest_plan is not None)
        assert planner.error is None


def test_what_was_asked_before_a_reset_is_not_obeyed_after_it():
    policy, clock = Gated(), Clock()
    controller = TimedController(policy, step_s=STEP, safe_action=np.array([-5.0]))
    controller.observe(seen(0.0), 0.0)
    with Planner(controller, clock):
        assert policy.begun.acquire(timeout=PATIENCE_S)
        controller.reset()
        policy.let.release()
        until(lambda: controller.counts.foreign == 1)
        assert controller.action_at(0.1) == -5.0
        policy.let.release(9)


def test_planner_starts_again_and_leaves_a_plan_that_hangs():
    policy, clock = Gated(), Clock()
    controller = TimedController(policy, step_s=STEP)
    planner = Planner(controller, clock, patience_s=0.05)
    controller.observe(seen(0.0), 0.0)
    with planner:
        assert policy.begun.acquire(timeout=PATIENCE_S)
    assert isinstance(planner.error, TimeoutError)
    controller.reset()
    policy.let.release(9)
    controller.observe(seen(1.0), 1.0)
    clock.now = 1.0
    with planner:
        until(lambda: controller.newest_plan is not None)
    assert planner.error is None


def test_a_policy_that_is_too_slow_for_its_rate_is_said_once_in_figures(caplog):
    policy, clock = Gated(), Clock()
    controller = TimedController(policy, step_s=STEP, strategy=Chunking(2))
    for episode in range(2):
        clock.now = 10.0 * episode
        controller.reset()
        with Planner(controller, clock):
            for took in (0.0, 0.5, 0.6):  # a plan has actions for 0.7 s, and the next one is asked for after 0.2 s
                now, before = clock.now, controller.counts.accepted
                controller.observe(seen(now), now)
                assert policy.begun.acquire(timeout=PATIENCE_S)
                clock.now = now + took
                assert (controller.slow is None) == (episode == 0)
                policy.let.release()
                until(lambda: controller.counts.accepted > before)  # noqa: B023
                clock.now = max(clock.now, now + 2 * STEP)
    said = (
        "a plan came 0.6 s after the observation that it rests on, 0.4 s after the end of the one before; its 7 actions"
    )
    assert caplog.messages == [f"Chunking: {controller.slow}"]
    assert controller.slow.startswith(said)
