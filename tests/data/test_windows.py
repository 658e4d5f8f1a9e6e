"""Window arithmetic, against a plain loop over episodes and starts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.config import Horizons
from diffusion_policy.data.windows import WindowIndex
from diffusion_policy.errors import DataError


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], Horizons]:
    to, ta = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    tp = draw(st.integers(to + ta - 1, to + ta + 6))
    return draw(st.lists(st.integers(tp, tp + 12), min_size=1, max_size=6)), Horizons(to, ta, tp)


def by_loop(lengths: list[int], horizons: Horizons) -> list[list[int]]:
    rows, begin = [], 0
    for length in lengths:
        for start in range(-(horizons.obs_horizon - 1), length - horizons.pred_horizon + horizons.action_horizon):
            window = range(start, start + horizons.pred_horizon)
            rows.append([begin + min(max(step, 0), length - 1) for step in window])
        begin += length
    return rows


@given(cases())
def test_steps_equal_a_plain_loop(case: tuple[list[int], Horizons]) -> None:
    lengths, horizons = case
    index = WindowIndex(np.cumsum(lengths), horizons)
    expected = np.array(by_loop(lengths, horizons))
    assert len(index) == len(expected)
    np.testing.assert_array_equal(index.steps(np.arange(len(index))), expected)
    np.testing.assert_array_equal(index.obs_steps(np.arange(len(index))), expected[:, : horizons.obs_horizon])


@given(cases())
def test_steps_never_leave_their_episode(case: tuple[list[int], Horizons]) -> None:
    lengths, horizons = case
    ends = np.cumsum(lengths)
    index = WindowIndex(ends, horizons)
    ids = np.arange(len(index))
    owner = np.searchsorted(ends, index.steps(ids), side="right")
    assert (owner == index.episode_of(ids)[:, None]).all()


@given(cases())
def test_every_step_is_now_once_but_the_last_ones(case: tuple[list[int], Horizons]) -> None:
    """ "Now" runs from the first step to where Ta - 1 padded actions are left; no step comes twice."""
    lengths, horizons = case
    index = WindowIndex(np.cumsum(lengths), horizons)
    now = index.obs_steps(np.arange(len(index)))[:, -1]
    unpadded = horizons.pred_horizon - horizons.start - horizons.action_horizon  # predicted after the executed ones
    begins = np.cumsum([0, *lengths[:-1]])
    expected = [b + s for b, n in zip(begins, lengths, strict=True) for s in range(n - unpadded)]
    assert now.tolist() == expected


def test_index_has_the_published_number_of_windows() -> None:
    index = WindowIndex(np.array([100]), Horizons(2, 8, 16))
    assert len(index) == 100 - 16 + 2 + 8 - 1
    assert index.steps(np.array([0]))[0].tolist() == [0, 0, *range(1, 15)]
    assert index.steps(np.array([len(index) - 1]))[0].tolist() == [*range(91, 100), *[99] * 7]


def test_describe_names_episode_steps_and_padding() -> None:
    index = WindowIndex(np.array([20, 50]), Horizons(2, 8, 16), episode_ids=[4, 17])
    first_of_second = int(np.flatnonzero(index.episode_of(np.arange(len(index))) == 17)[0])
    assert index.describe(first_of_second) == "episode 17, steps 0-14 of 30 (edges repeated: 1 before, 0 after)"
    assert index.describe(first_of_second + 3) == "episode 17, steps 2-17 of 30"
    assert index.describe(len(index) - 1).endswith("(edges repeated: 0 before, 7 after)")


def test_index_refuses_an_episode_shorter_than_a_window() -> None:
    ends = np.cumsum([20, 15, 30, 3])
    with pytest.raises(
        DataError, match=r"horizons\.pred_horizon = 16 .* 2 of . episodes .* episode 7 with 15; .*drop_short"
    ):
        WindowIndex(ends, Horizons(2, 8, 16), episode_ids=[5, 7, 9, 11])
    index = WindowIndex(ends, Horizons(2, 8, 16), episode_ids=[5, 7, 9, 11], drop_short=True)
    assert set(index.episode_of(np.arange(len(index))).tolist()) == {5, 9}
    assert index.dropped == [7, 11]
    kept = WindowIndex(np.array([20]), Horizons(2, 8, 16))
    np.testing.assert_array_equal(index.steps(np.arange(len(kept))), kept.steps(np.arange(len(kept))))


def test_index_refuses_to_be_empty() -> None:
    with pytest.raises(DataError, match="none left"):
        WindowIndex(np.array([3]), Horizons(2, 8, 16), drop_short=True)


@pytest.mark.parametrize("bad", [-1, 93])
def test_steps_refuse_numbers_outside(bad: int) -> None:
    with pytest.raises(IndexError, match=r"in \[0, 93\)"):
        WindowIndex(np.array([100]), Horizons(2, 8, 16)).steps(np.array([bad]))
