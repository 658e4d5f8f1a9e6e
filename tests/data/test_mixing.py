"""Real and synthetic transitions in one batch: the exact share, every real row, nothing to remember."""

import numpy as np
import pytest
import torch

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.mixing import MixedTransitions
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.transitions import TransitionBatch, TransitionDataset
from diffusion_policy.data.windows import WindowIndex
from diffusion_policy.errors import ConfigError

OBS, ACTION = {"pos": ObsField("low_dim", (1,))}, ActionSpec((1,))


def numbered(count: int, sign: int) -> TransitionDataset:
    """Returns transitions whose every number is sign * (their own number + 1)."""
    values = sign * torch.arange(1, count + 1, dtype=torch.float32)[:, None]
    index = WindowIndex(np.arange(1, count + 1), Horizons(1, 1, 1))
    outcomes = Outcomes(values[:, 0].numpy(), np.zeros(count, bool), {"pos": values.numpy()})
    return TransitionDataset(WindowDataset({"pos": values}, values, index), outcomes, discount=0.9)


REAL, SYNTHETIC = numbered(40, 1), numbered(1000, -1)


def columns(batch: TransitionBatch) -> np.ndarray:
    each = (batch.obs["pos"], batch.action, batch.reward, batch.next_obs["pos"])
    return np.stack([value.reshape(len(batch.reward)).numpy() for value in each], 1)


@pytest.mark.parametrize(("ratio", "rows", "synthetic"), [(0.5, 16, 8), (0.25, 16, 4), (0.1, 16, 2), (1.0, 16, 16)])
def test_share_of_every_batch_is_the_ratio_and_rows_stay_whole(ratio: float, rows: int, synthetic: int) -> None:
    mixed = MixedTransitions(REAL, SYNTHETIC, ratio)
    rng = np.random.default_rng(0)
    for _ in range(5):
        found = columns(mixed.batch(rng.permutation(40)[:rows]))
        assert (found[:, 0] < 0).sum() == synthetic == mixed.num_synthetic(rows)
        assert (found == found[:, :1]).all()  # of one transition, not of two


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_pieces_of_a_batch_are_its_rows(ratio: float, size: int) -> None:
    mixed = MixedTransitions(REAL, SYNTHETIC, ratio)
    ids = np.random.default_rng(1).permutation(40)[:16]
    pieces = [columns(mixed.part(ids, slice(at, min(16, at + size)))) for at in range(0, 16, size)]
    np.testing.assert_array_equal(np.concatenate(pieces), columns(mixed.batch(ids)))


def test_ratio_of_nothing_is_the_real_batch() -> None:
    ids = np.array([3, 1, 2])
    np.testing.assert_array_equal(
        columns(MixedTransitions(REAL, SYNTHETIC, 0.0).batch(ids)), columns(REAL.batch(torch.from_numpy(ids)))
    )


def test_same_numbers_give_the_same_batch_and_others_another() -> None:
    mixed = MixedTransitions(REAL, SYNTHETIC, 0.5)
    ids = np.arange(16)
    np.testing.assert_array_equal(columns(mixed.batch(ids)), columns(mixed.batch(ids.copy())))
    other = columns(mixed.batch(ids[::-1].copy()))
    assert not np.array_equal(columns(mixed.batch(ids))[8:], other[8:])


def test_all_rows_of_both_take_part() -> None:
    mixed = MixedTransitions(REAL, SYNTHETIC, 0.5)
    rng = np.random.default_rng(0)
    seen = np.concatenate([columns(mixed.batch(rng.permutation(40)[:20]))[:, 0] for _ in range(1000)])
    assert set(seen) == {*range(1, 41), *range(-1000, 0)}
    real = np.bincount(seen[seen > 0].astype(int))[1:]
    assert real.min() > 0.7 * real.mean()


def test_ratio_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="synthetic_ratio must be in"):
        MixedTransitions(REAL, SYNTHETIC, 1.5)
