"""What chunks agree on: the mean of an ensemble, and the part of the running chunk that real-time chunking holds."""

import numpy as np
import pytest

from diffusion_policy.config import Horizons
from diffusion_policy.control.plan import Plan, PlanRequest, answers
from diffusion_policy.control.strategies import Chunking, Ensembling, RealTimeChunking, soft_weights
from diffusion_policy.errors import ConfigError
from tests.control.clocks import STEP, Holding, Telling

HORIZONS = Horizons(2, 4, 8)


def plan(start, *values, ready=None):
    return Plan(start * STEP, STEP, np.array(values, np.float32)[:, None], (start if ready is None else ready) * STEP)


def test_ensemble_is_the_mean_weighted_as_published():
    plans = [plan(0, 1.0, 1.0, 1.0), plan(1, 2.0, 2.0, 2.0), plan(2, 6.0, 6.0, 6.0)]
    weights = np.exp(-0.5 * np.arange(3))
    assert Ensembling(m=0.5).action(plans, 2 * STEP) == pytest.approx(weights @ [1, 2, 6] / weights.sum())
    assert Ensembling(m=0.5).action(plans, 3 * STEP) == pytest.approx(weights[:2] @ [2, 6] / weights[:2].sum())
    assert Ensembling().action(plans, 9 * STEP) is None


def test_ensemble_of_one_plan_is_that_plan():
    assert Ensembling().action([plan(0, 3.0)], 0.0) == Chunking(4).action([plan(0, 3.0)], 0.0) == 3.0


def test_weights_are_one_for_what_is_committed_and_fall_to_nothing_where_the_chunk_ends():
    weights = soft_weights(np.arange(-1, 9), 2, 6)
    c = (6 - np.arange(2, 6)) / (6 - 2 + 1)
    assert weights == pytest.approx([1, 1, 1, *(c * (np.exp(c) - 1) / (np.e - 1)), 0, 0, 0])
    assert (np.diff(weights[2:]) <= 0).all()


def test_all_of_a_chunk_that_will_be_executed_is_held():
    assert soft_weights(np.arange(5), 9, 3).tolist() == [1, 1, 1, 0, 0]


def test_real_time_chunking_holds_the_running_chunk_at_its_own_times():
    running = plan(0, *range(7))
    known = RealTimeChunking(3, delay=2).known([running], 3 * STEP, HORIZONS)
    assert known.actions.shape == (1, 8, 1)
    assert known.actions[0, :5, 0].tolist() == [2, 3, 4, 5, 6]  # the first belongs to the observation before
    assert known.weight[0, :3].tolist() == [1, 1, 1]
    assert 0 < known.weight[0, 4] < known.weight[0, 3] < 1
    assert known.weight[0, 5:].tolist() == [0, 0, 0]


def test_what_another_chunk_did_before_this_one_arrived_is_not_held():
    running = plan(0, *range(7), ready=3)
    assert RealTimeChunking(3, delay=1).known([running], 3 * STEP, HORIZONS).weight[0, :2].tolist() == [0, 1]


def test_without_a_running_chunk_the_next_is_free():
    assert RealTimeChunking(3).known([], 0.0, HORIZONS) is None
    assert RealTimeChunking(3).known([plan(0, 1.0)], 5 * STEP, HORIZONS) is None


def test_guided_requests_need_a_policy_that_can_be_guided():
    known = RealTimeChunking(3).known([plan(0, *range(7))], STEP, HORIZONS)
    window = {"now": np.zeros((2, 1), np.float32)}
    free = PlanRequest(STEP, window, np.zeros((8, 1), np.float32))
    held = PlanRequest(STEP, window, np.zeros((8, 1), np.float32), known)
    with pytest.raises(ConfigError, match="Telling cannot be guided"):
        answers(Telling(), [held])
    with pytest.raises(ConfigError, match="all be guided, or none"):
        answers(Holding(), [held, free])
    assert answers(Holding(), [held])[0][1] == known.actions[0, 1]


def test_asking_follows_the_interval_without_drift():
    strategy, asked = Chunking(3), None
    due = []
    for tick in range(10):
        if strategy.is_due(asked, tick * STEP, STEP):
            asked = tick * STEP
            due.append(tick)
    assert due == [0, 3, 6, 9]
