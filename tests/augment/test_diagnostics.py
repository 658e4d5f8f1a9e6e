"""Statistics of tables: equal to references, and blind where they are known to be blind."""

import numpy as np
import pytest
from scipy import stats

from diffusion_policy.augment.baselines import GaussianAugmenter, NoiseAugmenter
from diffusion_policy.augment.diagnostics import (
    RealRows,
    correlation_similarity,
    fidelity,
    ks_complement,
    noise_as_near,
)
from diffusion_policy.augment.transitions import Transitions
from tests.augment.tables import COLUMNS, table


def shuffled(real: Transitions) -> Transitions:
    """Returns independent columns with the real marginals."""
    rng = np.random.default_rng(0)
    return Transitions(real.columns, np.stack([rng.permutation(column) for column in real.rows.T], 1))


def fitted(real: Transitions) -> GaussianAugmenter:
    model = GaussianAugmenter(real.columns)
    model.fit(real)
    return model


def test_ks_complement_is_scipys() -> None:
    real, other = table(300), table(200, seed=1)
    other.rows[:, 0] += 0.5
    found = ks_complement(real.rows, other.rows)
    expected = [1 - stats.ks_2samp(a, b).statistic for a, b in zip(real.rows.T, other.rows.T, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[0] < 0.85
    np.testing.assert_array_equal(ks_complement(real.rows, real.rows), 1.0)


def test_correlations_show_what_marginals_do_not() -> None:
    real = table(2000)
    other = shuffled(real)
    np.testing.assert_allclose(ks_complement(real.rows, other.rows), 1.0)
    assert correlation_similarity(real.rows, other.rows).min() < 0.55
    assert correlation_similarity(real.rows, real.rows).min() == pytest.approx(1.0)
    expected = np.corrcoef(real.rows.T)[0, 1] - np.corrcoef(other.rows.T)[0, 1]
    assert correlation_similarity(real.rows, other.rows)[0] == pytest.approx(1 - abs(expected) / 2, abs=1e-5)


def test_constant_columns_have_no_correlation_and_spoil_nothing() -> None:
    real = table(100)
    real.rows[:, 1] = 3.0
    similar = correlation_similarity(real.rows, real.rows)
    assert len(similar) == (COLUMNS.size - 1) * (COLUMNS.size - 2) // 2
    np.testing.assert_allclose(similar, 1.0)
    flat = Transitions(COLUMNS, real.rows.copy())
    flat.rows[:, 0] = 0.0  # constant in the synthetic rows only: uncorrelated
    assert np.isfinite(correlation_similarity(real.rows, flat.rows)).all()


def test_copies_show_as_no_distance() -> None:
    real = table(300)
    rows = RealRows(fitted(real), real)
    copied, fresh = rows.nearest(real.subset(slice(0, 50))), rows.nearest(fitted(real).sample(200, seed=1))
    assert (copied.synthetic, copied.copies) == (0.0, 1.0)
    assert rows.apart > 0
    assert fresh.synthetic > 0.5 * rows.apart
    assert fresh.copies == 0.0


def test_noise_is_tuned_to_a_distance() -> None:
    real = table(500)
    noise = NoiseAugmenter(COLUMNS)
    noise.fit(real)
    rows = RealRows(noise, real)
    wanted = 0.3 * rows.apart
    noise_as_near(real, rows, wanted, noise)
    assert rows.nearest(noise.sample(500, seed=5)).synthetic == pytest.approx(wanted, rel=0.1)


def test_fidelity_names_columns_and_compares_rates() -> None:
    real, other = table(1000), table(1000, seed=2)
    other.rows[:, COLUMNS.reward_at] += 1.0
    found = fidelity(real, other, RealRows(fitted(real), real))
    assert list(found.ks) == list(COLUMNS.names)
    assert min(found.ks, key=found.ks.get) == "reward"  # type: ignore[arg-type]
    assert found.ks_min == found.ks["reward"] < found.ks_mean
    flat, wrong = table(1000), table(1000, seed=2)
    flat.rows[:, 0] = wrong.rows[:, 0] = 3.0  # exact whatever a model does
    compared = fidelity(flat, wrong, RealRows(fitted(flat), flat))
    assert compared.ks["pos[0]"] == 1.0
    assert compared.ks_mean == pytest.approx(
        np.mean([value for name, value in compared.ks.items() if name != "pos[0]"])
    )
    assert found.reward_mean[1] - found.reward_mean[0] == pytest.approx(1.0, abs=0.15)
    assert found.terminal_rate == (pytest.approx(0.1, abs=0.03), pytest.approx(0.1, abs=0.03))
