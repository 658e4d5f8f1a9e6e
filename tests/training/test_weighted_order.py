"""The order of rows of several data sets with weights: shares, turns, and that it is a function of seed and step."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.errors import ConfigError
from diffusion_policy.training.weighted_order import Shares, WeightedOrder

SIZES = st.lists(st.integers(3, 60), min_size=2, max_size=4)


def shares(sizes: list[int], weights: list[float]) -> Shares:
    return Shares(tuple("abcd"[: len(sizes)]), tuple(sizes), tuple(weights))


def counts(ids: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Returns how many of some rows are of each set."""
    return np.bincount(np.searchsorted(np.cumsum(sizes), ids, side="right"), minlength=len(sizes))


@given(SIZES, st.data())
def test_epoch_holds_the_shares_to_less_than_a_row(sizes: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.5, 5), min_size=len(sizes), max_size=len(sizes)))
    total = sum(sizes)
    order = WeightedOrder(shares(sizes, weights), total, seed=0)
    due = np.array(weights) / sum(weights) * total
    for epoch in range(3):
        found = counts(order.batch(epoch), sizes)
        assert found.sum() == total
        assert (np.abs(found - due) < 1).all()


@given(st.integers(2, 300), st.integers(2, 300), st.floats(0.05, 0.95), st.integers(1, 40))
def test_batch_of_two_sets_holds_the_shares_to_less_than_a_row(a: int, b: int, weight: float, rows: int) -> None:
    both = shares([a, b], [weight, 1 - weight])
    if min(weight, 1 - weight) * (a + b) < 1:
        return  # refused: none of an epoch's rows
    order = WeightedOrder(both, rows, seed=1)
    of_epoch = both.rows() / (a + b)
    for step in range(order.steps_per_epoch):
        ids = order.batch(step)
        assert (np.abs(counts(ids, [a, b]) - of_epoch * len(ids)) < 1).all()


def test_batch_of_even_shares_is_exact_and_batches_of_several_sets_are_close() -> None:
    even = WeightedOrder(shares([30, 90], [0.5, 0.5]), 20, seed=0)
    assert {tuple(counts(even.batch(step), [30, 90])) for step in range(18)} == {(10, 10)}
    sizes, weights = [500, 300, 200, 100], [0.1, 0.2, 0.3, 0.4]
    order = WeightedOrder(shares(sizes, weights), 64, seed=0)
    for step in range(order.steps_per_epoch - 1):
        assert (np.abs(counts(order.batch(step), sizes) - 64 * np.array(weights)) < 2).all()


@given(SIZES, st.integers(0, 3))
def test_no_row_comes_again_before_all_others_of_its_set(sizes: list[int], seed: int) -> None:
    order = WeightedOrder(shares(sizes, [1.0, *[3.0] * (len(sizes) - 1)]), 7, seed=seed)
    ids = np.concatenate([order.batch(step) for step in range(4 * order.steps_per_epoch)])
    which = np.searchsorted(np.cumsum(sizes), ids, side="right")
    for k, size in enumerate(sizes):
        mine = ids[which == k]
        for start in range(0, len(mine) - size + 1, size):
            assert len(set(mine[start : start + size])) == size


def test_order_is_a_function_of_seed_and_step_alone() -> None:
    both = shares([50, 20], [0.3, 0.7])
    order = WeightedOrder(both, 8, seed=3)
    forth = [order.batch(step) for step in range(30)]
    for step in (29, 3, 17, 0):  # as after a resume
        np.testing.assert_array_equal(WeightedOrder(both, 8, seed=3).batch(step), forth[step])
    assert any((one != other).any() for one, other in pairwise([forth[0], WeightedOrder(both, 8, seed=4).batch(0)]))


def test_whole_batches_leave_out_the_rest() -> None:
    order = WeightedOrder(shares([50, 20], [0.3, 0.7]), 16, seed=3, whole=True)
    assert [len(order.batch(step)) for step in range(8)] == [16] * 8
    assert order.steps_per_epoch == 4


def test_weight_that_gives_no_row_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"weight 0\.001 of b gives it none of the 70 rows of an epoch"):
        WeightedOrder(shares([50, 20], [1.0, 0.001]), 8, seed=0)
