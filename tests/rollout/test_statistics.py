import numpy as np
import pytest

from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.statistics import bootstrap_mean, paired_difference, percentiles, wilson_rate


@pytest.mark.parametrize(("wins", "count"), [(0, 20), (7, 20), (20, 20), (1, 1), (118, 200)])
def test_wilson_rate_equals_the_closed_form(wins, count):
    z, p = 1.959963984540054, wins / count
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    estimate = wilson_rate([True] * wins + [False] * (count - wins))
    assert estimate.mean == p
    np.testing.assert_allclose(estimate.ci95, (centre - half, centre + half), atol=1e-12)


def test_bootstrap_mean_agrees_with_the_normal_interval_on_many_values():
    values = np.random.default_rng(0).normal(3, 2, 400)
    half = 1.96 * values.std(ddof=1) / 20
    estimate = bootstrap_mean(values)
    assert estimate.mean == pytest.approx(values.mean())
    np.testing.assert_allclose(estimate.ci95, (values.mean() - half, values.mean() + half), atol=0.03)


def test_bootstrap_mean_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    intervals = [bootstrap_mean(generator.exponential(1, 40)).ci95 for _ in range(60)]
    assert np.mean([low <= 1 <= high for low, high in intervals]) >= 0.85


def test_bootstrap_mean_is_the_same_every_time():
    values = np.random.default_rng(2).random(30)
    assert bootstrap_mean(values) == bootstrap_mean(values)


@pytest.mark.parametrize("values", [[0.5], [0.1] * 7, [0.1 + 0.2, 0.3], [0, 0, 0]])
def test_bootstrap_mean_of_equal_values_is_that_value(values):
    estimate = bootstrap_mean(values)
    assert estimate.ci95 == (estimate.mean, estimate.mean)


@pytest.mark.parametrize("values", [[0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 0.999], [-1e9, 1e-9]])
def test_bootstrap_mean_of_awkward_values_is_an_interval(values):
    estimate = bootstrap_mean(values)
    assert min(values) <= estimate.ci95[0] <= estimate.mean <= estimate.ci95[1] <= max(values)


def test_paired_difference_is_sharp_where_separate_intervals_are_not():
    first = np.random.default_rng(3).random(50)
    assert paired_difference(first, first + 0.01).ci95 == pytest.approx((0.01, 0.01))
    assert paired_difference(first, first[::-1]).mean == pytest.approx(0)
    with pytest.raises(ConfigError, match="same seeds"):
        paired_difference(first, first[:-1])


def test_percentiles_are_those_of_numpy_and_none_without_values():
    assert percentiles(range(101)) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_estimates_of_nothing_are_refused():
    for estimate in (wilson_rate, bootstrap_mean):
        with pytest.raises(ConfigError, match="at least one"):
            estimate([])
