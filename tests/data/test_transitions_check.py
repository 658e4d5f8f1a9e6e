"""A time limit that was stored as a termination is told from real terminations."""

import numpy as np
import pytest

from diffusion_policy.data.transitions_check import (
    constant_length_terminals,
    next_mismatches,
    terminations_inside,
)


def at_ends(lengths: list[int], which: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of episodes of these lengths, and flags at the last steps of some."""
    ends = np.cumsum(lengths)
    flags = np.zeros(ends[-1], bool)
    flags[ends[which] - 1] = True
    return ends, flags


@pytest.mark.parametrize(
    ("lengths", "terminated", "found"),
    [
        ([10, 10, 10], [0, 1, 2], 10),
        ([10, 4, 10, 10], [0, 2, 3], 10),  # the short one was cut otherwise
        ([10, 10, 10, 10], [1, 2, 3], 10),
        ([10, 10, 10], [0, 1], None),  # two are no pattern
        ([10, 9, 10, 10], [0, 1, 2, 3], None),  # one ended earlier: terminations are real
        ([10, 10, 10, 12], [0, 1, 2], None),  # no limit at 10: another one went on
        ([10, 10, 10], [], None),
    ],
)
def test_constant_length_terminals_are_told_from_real_ones(lengths, terminated, found) -> None:
    assert constant_length_terminals(*at_ends(lengths, terminated)) == found


def test_constant_length_terminals_of_nothing_is_none() -> None:
    assert constant_length_terminals([], []) is None


def test_terminations_inside_are_counted_and_those_at_ends_are_not() -> None:
    ends, flags = at_ends([4, 5], [0, 1])
    assert terminations_inside(ends, flags) == 0
    flags[[1, 6]] = True
    before = flags.copy()
    assert terminations_inside(ends, flags) == 2
    np.testing.assert_array_equal(flags, before)


def test_single_transitions_have_no_lengths_to_tell_from_and_no_next_row() -> None:
    ends = np.arange(1, 6)
    assert constant_length_terminals(ends, np.ones(5, bool)) is None
    one = {"pos": np.zeros((1, 2)), "next_pos": np.ones((1, 2))}
    assert next_mismatches(one, "pos") == 0
