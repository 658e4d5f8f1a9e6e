"""Arithmetic on episode ends."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.data.episodes import checked_ends, episode_at, lengths, runs, spans, starts
from diffusion_policy.errors import DataError

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


@given(LENGTHS)
def test_lengths_inverts_cumsum(steps: list[int]) -> None:
    ends = np.cumsum(steps)
    assert lengths(ends).tolist() == steps
    assert (starts(ends) + lengths(ends) == ends).all()


@given(LENGTHS, st.integers(1, 60))
def test_spans_cover_every_episode_once_within_the_limit(steps: list[int], limit: int) -> None:
    ends = np.cumsum(steps)
    found = list(spans(ends, limit))
    assert [i for first, stop in found for i in range(first, stop)] == list(range(len(steps)))
    assert all(sum(steps[first:stop]) <= limit or stop == first + 1 for first, stop in found)


@given(st.sets(st.integers(0, 40)))
def test_runs_cover_the_chosen_with_gaps_between(chosen: set[int]) -> None:
    found = runs(sorted(chosen))
    assert [i for first, stop in found for i in range(first, stop)] == sorted(chosen)
    assert all(a[1] < b[0] for a, b in pairwise(found))


def test_episode_at_treats_ends_as_exclusive() -> None:
    ends = np.array([3, 5])
    assert [episode_at(ends, step) for step in range(5)] == [0, 0, 0, 1, 1]


def test_checked_ends_drops_the_zeros_of_a_killed_append_only_at_the_end() -> None:
    assert checked_ends(np.array([3, 5, 0], np.int32), "x").tolist() == [3, 5]
    assert checked_ends(np.array([0, 0]), "x").size == 0
    with pytest.raises(DataError, match=r"entry 1 is 0 after 3"):
        checked_ends(np.array([3, 0, 5]), "x")


@pytest.mark.parametrize("bad", [[3, 3], [5, 3], [-1, 4]])
def test_checked_ends_refuses_disorder(bad: list[int]) -> None:
    with pytest.raises(DataError, match=r"demos: meta/episode_ends must increase strictly, but entry \d is .*rewrite"):
        checked_ends(np.array(bad), "demos")


@pytest.mark.parametrize("bad", [np.ones((2, 1), int), np.ones(2)])
def test_checked_ends_refuses_other_forms(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"must be whole numbers of shape \(M,\)"):
        checked_ends(bad, "demos")
