"""Normalisation is a bijection, puts limits where promised, and never divides by a constant."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.normalizer import LinearNormalizer, check_mode

MODES = ("limits", "gaussian", "quantile", "identity")


@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 1000), spread=st.floats(1e-3, 1e4), centre=st.floats(-1e4, 1e4))
def test_normalizer_unnormalize_undoes_normalize(mode: str, seed: int, spread: float, centre: float) -> None:
    data = torch.randn(50, 3, generator=torch.Generator().manual_seed(seed)) * spread + centre
    normalizer = LinearNormalizer((3,))
    normalizer.fit(data, check_mode(mode, "test"))
    back = normalizer.unnormalize(normalizer(data))
    torch.testing.assert_close(back, data, rtol=1e-4, atol=1e-5 * (abs(centre) + spread))


def test_normalizer_limits_reach_one_exactly_at_the_extremes() -> None:
    data = torch.tensor([[0.0, -5.0], [10.0, 5.0], [4.0, 0.0]])
    normalizer = LinearNormalizer((2,))
    normalizer.fit(data, "limits")
    y = normalizer(data)
    torch.testing.assert_close(y.amin(0), torch.tensor([-1.0, -1.0]))
    torch.testing.assert_close(y.amax(0), torch.tensor([1.0, 1.0]))


def test_normalizer_gaussian_has_mean_0_and_std_1() -> None:
    data = torch.randn(1000, 2) * torch.tensor([3.0, 0.1]) + 7
    normalizer = LinearNormalizer((2,))
    normalizer.fit(data, "gaussian")
    y = normalizer(data)
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)


def test_normalizer_quantile_is_not_moved_by_one_outlier() -> None:
    data = torch.linspace(0, 1, 1001)[:, None].clone()
    data[0] = -1e6
    normalizer = LinearNormalizer((1,))
    normalizer.fit(data, "quantile")
    assert abs(float(normalizer(torch.tensor([[0.5]])))) < 0.02
    assert float(normalizer(data).amin()) < -1e5


@pytest.mark.parametrize("mode", ["limits", "gaussian", "quantile"])
def test_normalizer_shifts_a_constant_dimension_and_never_divides_it(mode: str) -> None:
    data = torch.stack((torch.full((100,), 42.0), torch.linspace(0, 1, 100)), dim=1)
    data[:, 0] += 1e-6 * torch.randn(100)  # constant but for rounding
    normalizer = LinearNormalizer((2,))
    normalizer.fit(data, check_mode(mode, "test"))
    assert float(normalizer.scale[0]) == 1.0
    assert float(normalizer(data)[:, 0].abs().max()) < 1e-3
    assert float(normalizer(torch.tensor([43.0, 0.5]))[0]) == pytest.approx(1.0, abs=1e-3)


def test_normalizer_identity_uses_bounds_where_given() -> None:
    normalizer = LinearNormalizer((2,))
    normalizer.fit(torch.randn(10, 2), "identity", (torch.tensor([0.0, -2.0]), torch.tensor([512.0, 2.0])))
    torch.testing.assert_close(normalizer(torch.tensor([512.0, 0.0])), torch.tensor([1.0, 0.0]))
    normalizer.fit(torch.randn(10, 2), "identity")
    torch.testing.assert_close(normalizer(torch.tensor([5.0, 6.0])), torch.tensor([5.0, 6.0]))


def test_normalizer_is_saved_with_the_state_dict() -> None:
    fitted, fresh = LinearNormalizer((3, 2)), LinearNormalizer((3, 2))
    fitted.fit(torch.randn(20, 3, 2), "limits")
    fresh.load_state_dict(fitted.state_dict())
    x = torch.randn(5, 3, 2)
    assert torch.equal(fitted(x), fresh(x))


def test_check_mode_lists_known_modes() -> None:
    with pytest.raises(ConfigError, match="limits, gaussian, quantile, identity, but got 'minmax'"):
        check_mode("minmax", "normalization.obs")
