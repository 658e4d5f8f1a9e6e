"""Ticks are even, and those that are past are left out."""

from itertools import islice, pairwise

import pytest

from diffusion_policy.control.pace import paced


class Clock:
    """Goes forward by sleeping, and when it is told; each waking up is a bit late."""

    def __init__(self, late_s=0.0):
        self.now, self.late_s = 100.0, late_s

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds + self.late_s if seconds else 0.0


def ticks(count, stalls=(), late_s=0.0):
    """Returns the times of ticks since the first; a stall is the number of a tick and what it takes."""
    clock, found = Clock(late_s), []
    for number, now in enumerate(islice(paced(0.1, clock, clock.sleep), count)):
        found.append(now - 100.0)
        clock.now += dict(stalls).get(number, 0.03)
    return found


def test_ticks_are_even_and_late_ones_do_not_add_up():
    assert ticks(50) == pytest.approx([0.1 * number for number in range(50)])
    assert ticks(50, late_s=0.02)[1:] == pytest.approx([0.1 * number + 0.02 for number in range(1, 50)])
    assert ticks(4, [(0, 0.13)]) == pytest.approx([0, 0.13, 0.2, 0.3])


@pytest.mark.parametrize(("stall", "following"), [(1.03, [1.03, 1.1, 1.2]), (1.07, [1.1, 1.2, 1.3])])
def test_no_burst_follows_a_stall(stall, following):
    assert ticks(4, [(0, stall)]) == pytest.approx([0, *following])
    found = ticks(40, [(5, 1.0), (9, 0.555), (20, 0.349)])
    assert min(b - a for a, b in pairwise(found)) > 0.049
