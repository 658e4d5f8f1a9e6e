"""The closed loop's proof counts every tick that was due."""

import importlib.util
from pathlib import Path

import pytest

from tests.control.clocks import Clock


def loaded():
    path = Path(__file__).parents[2] / "benchmarks" / "closed_loop_parts.py"
    spec = importlib.util.spec_from_file_location("closed_loop_parts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counted(takes, hz=50.0, seconds=2.0):
    """Returns (misses, due, ticks that came); `takes` is {number of a tick that came: seconds its action takes}."""
    module, clock, late = loaded(), Clock(7.0), []
    for number, due in enumerate(module.ticks(hz, seconds, clock, clock.sleep)):
        clock.now += takes.get(number, 0.001)
        late.append(clock.now - due)
    due = module.due_ticks(hz, seconds)
    return module.missed(late, due), due, len(late)


def test_ticks_in_time_are_no_misses():
    assert counted({}) == (0, 100, 100)
    assert counted({5: 0.0099}) == (0, 100, 100)


def test_a_late_action_is_one_miss():
    assert counted({5: 0.015}) == (1, 100, 100)
    assert counted({99: 0.5}) == (1, 100, 100)


@pytest.mark.parametrize(
    ("stall_s", "misses", "came"),
    [
        (0.025, 1, 100),  # the next comes 5 ms late
        (0.035, 2, 100),  # the next comes 15 ms late
        (1.005, 50, 51),  # itself and 49 that never came; the fiftieth comes 5 ms late
    ],
)
def test_ticks_that_a_stall_swallows_are_misses(stall_s, misses, came):
    assert counted({10: stall_s}) == (misses, 100, came)


def test_a_loop_that_is_always_too_slow_misses_nearly_all():
    misses, due, came = counted(dict.fromkeys(range(1000), 0.05))
    assert (due, misses) == (100, 100)
    assert came < 45


def test_ticks_swallowed_at_the_end_count_too():
    assert counted({95: 9.0}) == (5, 100, 96)


def test_misses_that_the_hypervisor_may_have_made_are_late_ticks_with_stolen_time():
    missed_stolen = loaded().missed_stolen
    assert missed_stolen([0.002, 0.015, 0.015], [0.01, 0.0, 0.02]) == 1


def test_stolen_time_is_no_less_than_nothing_and_never_goes_back():
    stolen_s = loaded().stolen_s
    assert 0 <= stolen_s() <= stolen_s()
