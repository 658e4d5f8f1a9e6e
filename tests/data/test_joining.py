"""Several data sets as one: the rows of each, in the order asked for, and what a message calls them."""

import numpy as np
import pytest
import torch

from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.joining import JoinedTransitions, JoinedWindows
from tests.data.test_mixing import columns, numbered

A, B, C = numbered(40, 1), numbered(7, -1), numbered(3, 100)
THREE = JoinedTransitions({"a": A, "b": B, "c": C})


def windows(part: WindowDataset, ids: np.ndarray) -> torch.Tensor:
    return part.batch(ids).action


def test_rows_are_those_of_their_sets_in_the_order_asked_for() -> None:
    ids = np.random.default_rng(0).permutation(50)
    alone = np.concatenate([columns(part.batch(np.arange(len(part)))) for part in (A, B, C)])
    np.testing.assert_array_equal(columns(THREE.batch(ids)), alone[ids])
    np.testing.assert_array_equal(columns(THREE.batch(torch.tensor([49, 0, 41, 41]))), alone[[49, 0, 41, 41]])
    assert THREE.sizes == (40, 7, 3)
    assert len(THREE) == 50


def test_batch_of_one_set_alone_is_its_own() -> None:
    np.testing.assert_array_equal(columns(THREE.batch(np.array([42, 40]))), columns(B.batch(np.array([2, 0]))))


def test_steps_of_all_sets_are_there_for_normalisers() -> None:
    joined = JoinedWindows({"a": A.windows, "b": B.windows})
    assert joined.num_steps == 47
    np.testing.assert_array_equal(joined.all_actions()[40:], B.windows.all_actions())
    np.testing.assert_array_equal(joined.all_obs("pos")[:40], A.windows.all_obs("pos"))
    np.testing.assert_array_equal(windows(joined, np.array([46, 1])), joined.all_actions()[[46, 1]][:, None])
    np.testing.assert_array_equal(THREE.rewards(), torch.cat([A.rewards(), B.rewards(), C.rewards()]))


def test_description_names_set_and_episode() -> None:
    assert THREE.describe(np.array([41, 3])) == "b: episode 1, step 0; a: episode 3, step 0"
    assert THREE.describe(np.arange(9), limit=1) == "a: episode 0, step 0; and 8 more"


@pytest.mark.parametrize("ids", [[-1], [50]])
def test_numbers_of_no_row_are_refused(ids: list[int]) -> None:
    with pytest.raises(IndexError, match=r"ids must be in \[0, 50\)"):
        THREE.batch(np.array(ids))
