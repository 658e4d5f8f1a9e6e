"""Observations have times: whatever order they come in, windows are what a robot without delays would see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.config import ObsField
from diffusion_policy.control.history import ObservationHistory
from diffusion_policy.errors import ObservationError
from tests.control.clocks import STEP, seen

SPEC = {"now": ObsField("low_dim", (1,))}


def made(times, To=3):
    history = ObservationHistory(SPEC, To, STEP)
    for count, time_s in enumerate(times):
        history.add(seen(time_s), time_s)
        history.newest(max(times[: count + 1]))  # as somebody who acts on it asks
    return history


def window(history, time_s):
    found = history.window(time_s)
    assert found is not None
    return found["now"][:, 0].astype(float).round(4).tolist()


def test_window_holds_observations_one_step_apart_whatever_the_sensors_rate():
    assert window(made(np.arange(0, 1.001, 0.02)), 1.0) == [0.8, 0.9, 1.0]
    assert window(made([0.0, 0.1, 0.2]), 0.2) == [0.0, 0.1, 0.2]


def test_first_observation_fills_the_window():
    assert window(made([0.5]), 0.5) == [0.5, 0.5, 0.5]
    assert ObservationHistory(SPEC, 3, STEP).window(0.0) is None


@given(st.permutations([0.0, 0.1, 0.2, 0.3, 0.4]))
def test_order_of_arrival_does_not_matter(times):
    assert window(made(times), 0.4) == [0.2, 0.3, 0.4]


def test_jitter_below_half_a_step_changes_no_place():
    assert window(made([0.0, 0.104, 0.196, 0.3]), 0.3) == [0.104, 0.196, 0.3]


def test_future_observations_are_not_seen():
    assert window(made([0.0, 0.1, 0.2, 0.3]), 0.2) == [0.0, 0.1, 0.2]


def test_a_wrong_clock_hides_no_true_observation():
    history = made([0.0, 0.1])
    history.add(seen(1000.0), 1000.0)
    for time_s in (0.2, 0.3, 0.4):
        history.add(seen(time_s), time_s)
        assert history.newest(time_s)[0] == time_s
    assert window(history, 0.4) == [0.2, 0.3, 0.4]
    assert history.counts.dropped == 0


def test_missing_times_are_filled_with_the_one_before_and_counted():
    history = made([0.0, 0.1, 0.2, 0.5])
    assert window(history, 0.5) == [0.2, 0.2, 0.5]
    assert history.counts.missed == 1  # 0.2 for 0.3 is a step old, for 0.4 two


@pytest.mark.parametrize("gap_s", [0.35, 0.6, 60.0])
def test_what_was_before_a_gap_is_not_used_behind_it(gap_s):
    history = made([0.0, 0.1, 0.1 + gap_s])
    begins = round(0.1 + gap_s, 4)
    assert window(history, 0.1 + gap_s) == [begins] * 3
    assert history.counts.missed == 2
    history.add(seen(begins + 0.1), begins + 0.1)
    assert window(history, begins + 0.1) == [begins, begins, round(begins + 0.1, 4)]
    assert history.counts.missed == 3


def test_an_episodes_beginning_misses_nothing():
    history = made([7.0, 7.1])
    assert window(history, 7.0) == [7.0, 7.0, 7.0]
    assert window(history, 7.1) == [7.0, 7.0, 7.1]
    assert history.counts.missed == 0


def test_late_repeated_and_useless_observations_are_counted():
    history = made([0.0, 1.0, 0.9])
    assert history.counts.late == 1
    history.add(seen(0.95), 0.9)  # of the same time: the later one stands
    assert history.counts.repeated == 1
    assert window(history, 1.0) == [0.95, 0.95, 1.0]
    history.add(seen(0.1), 0.1)
    assert history.counts.dropped == 1


def test_memory_does_not_grow():
    assert len(made(np.arange(0, 100, STEP / 4))) <= 6 * 4 + 2


def test_memory_does_not_grow_where_nobody_asks():
    history = ObservationHistory(SPEC, 3, STEP)
    for time_s in np.arange(0, 100, STEP / 4):
        history.add(seen(time_s), time_s)
    assert len(history) <= 6 * 4 + 4
    assert history.counts.dropped == 0


@pytest.mark.parametrize("wrong", [1, 2])
def test_wrong_stamps_hide_no_true_observation_where_nobody_asks(wrong):
    history = ObservationHistory(SPEC, 3, STEP)
    for tick in range(20):
        history.add(seen(tick * STEP), tick * STEP)
    for count in range(wrong):
        history.add(seen(1000.0), 1000.0 + count)
    history.add(seen(2.0), 2.0)
    assert history.counts.dropped == 0
    assert window(history, 2.0) == [1.8, 1.9, 2.0]


@pytest.mark.parametrize(
    ("obs", "time_s", "says"),
    [
        ({"then": np.zeros(1)}, 0.2, "lacks now"),
        ({"now": np.zeros(2)}, 0.2, "shape"),
        ({"now": np.array([np.nan])}, 0.2, "finite"),
        ({"now": np.zeros((4, 1))}, 0.2, "one robot"),
        (seen(0.2), float("nan"), "time must be finite"),
        (seen(0.2), 1e308, "time must be finite"),
    ],
)
def test_refused_observation_changes_nothing(obs, time_s, says):
    history = made([0.0, 0.1])
    with pytest.raises(ObservationError, match=says):
        history.add(obs, time_s)
    assert (len(history), history.newest(0.1)[0]) == (2, 0.1)
    assert history.counts.taken == 2


def test_kept_observations_are_copies():
    history, obs = ObservationHistory(SPEC, 1, STEP), seen(0.0)
    history.add(obs, 0.0)
    obs["now"][:] = 9.0
    assert window(history, 0.0) == [0.0]
