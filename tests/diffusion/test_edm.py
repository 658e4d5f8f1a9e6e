"""EDM: conventions by identities, denoiser and samplers against the exact ones of a mixture."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffusion_policy.diffusion.edm import STILL, Churn, EdmConfig, denoised, edm_loss, heun, preconditioning
from diffusion_policy.errors import ConfigError

SIGMA = torch.tensor([1e-3, 0.05, 0.3, 1.0, 7.0, 80.0], dtype=torch.float64)
CONFIG = EdmConfig()


def exact(mixture):
    return lambda x, sigma: mixture.x0_mean(x, 1.0, sigma[:, None].to(x.dtype))


def network_of(denoise, sigma_data: float = 1.0):
    """Returns the network whose preconditioned denoiser is `denoise`."""

    def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
        sigma = torch.exp(4 * c_noise)
        c = preconditioning(sigma, sigma_data)
        x = scaled / c.scale_in[:, None]
        return (denoise(x, sigma) - c.skip[:, None] * x) / c.out[:, None]

    return network


def test_inputs_and_targets_of_the_network_have_unit_variance() -> None:
    for sigma_data in (1.0, 0.5):
        c = preconditioning(SIGMA, sigma_data)
        variance = sigma_data**2 + SIGMA**2
        torch.testing.assert_close(c.scale_in**2 * variance, torch.ones_like(SIGMA))
        error = (1 - c.skip) ** 2 * sigma_data**2 + c.skip**2 * SIGMA**2  # of x0 - c_skip x
        torch.testing.assert_close(error / c.out**2, torch.ones_like(SIGMA))
        weight = variance / (SIGMA * sigma_data) ** 2  # lambda of table 1
        torch.testing.assert_close(weight * c.out**2, torch.ones_like(SIGMA))
    torch.testing.assert_close(preconditioning(SIGMA).noise, SIGMA.log() / 4)


def test_each_number_has_the_coefficients_of_its_own_deviation() -> None:
    deviations = torch.tensor([1.0, 0.5, 0.03], dtype=torch.float64)
    together = preconditioning(SIGMA, deviations)
    for i, deviation in enumerate(deviations.tolist()):
        alone = preconditioning(SIGMA, deviation)
        for one, other in zip(together[:3], alone[:3], strict=True):
            torch.testing.assert_close(one[:, i], other)
        torch.testing.assert_close(together.noise, alone.noise)
    x0, noise = (torch.randn(6, 3, dtype=torch.float64) for _ in range(2))
    x = x0 + SIGMA[:, None] * noise
    exact = x * deviations**2 / (deviations**2 + SIGMA[:, None] ** 2)  # E[x0 | x] of independent Gaussians
    torch.testing.assert_close(denoised(lambda scaled, _: 0 * scaled, x, SIGMA, deviations), exact)
    levels = {"noise": noise, "sigma": SIGMA}
    columns = [
        edm_loss(lambda scaled, _: scaled.tanh(), x0[:, i : i + 1], **{**levels, "noise": noise[:, i : i + 1]},
                 sigma_data=deviations[i].item())
        for i in range(3)
    ]  # fmt: skip
    found = edm_loss(lambda scaled, _: scaled.tanh(), x0, **levels, sigma_data=deviations)
    torch.testing.assert_close(found, torch.stack(columns).mean(0))


def test_denoiser_of_zero_noise_is_the_identity() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    for scale in (0.0, 3.0):
        found = denoised(lambda x, _, s=scale: s * torch.ones_like(x), x, torch.full((4,), 1e-9))
        torch.testing.assert_close(found, x, atol=1e-8, rtol=0)


def test_loss_is_the_weighted_error_of_the_denoiser() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    for sigma_data in (1.0, 0.5):

        def network(x: Tensor, c_noise: Tensor) -> Tensor:
            return torch.tanh(x + c_noise[:, None])

        x = x0 + SIGMA[:, None] * noise
        weight = (SIGMA**2 + sigma_data**2) / (SIGMA * sigma_data) ** 2
        expected = weight * (denoised(network, x, SIGMA, sigma_data) - x0).square().mean(1)
        found = edm_loss(network, x0, noise=noise, sigma=SIGMA, sigma_data=sigma_data)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_minimum_of_the_loss_is_the_posterior_mean(mixture) -> None:
    generator = torch.Generator().manual_seed(0)
    count = 100_000
    x0 = mixture.quantiles(count).double()[torch.randperm(count, generator=generator)][:, None]
    noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    sigma = CONFIG.training_sigma(torch.randn(count, generator=generator))
    best = network_of(exact(mixture))

    def wrong(x: Tensor, c_noise: Tensor) -> Tensor:
        return best(x, c_noise) + 0.5 * torch.sin(3 * x)

    x = x0 + sigma[:, None] * noise
    scaled, c_noise = x * preconditioning(sigma).scale_in[:, None], sigma.log() / 4
    least = edm_loss(best, x0, noise=noise, sigma=sigma)
    more = edm_loss(wrong, x0, noise=noise, sigma=sigma)
    apart = (wrong(scaled, c_noise) - best(scaled, c_noise)).square().mean()  # Pythagoras
    spread = (more - least).std() / math.sqrt(count)
    assert abs((more - least).mean() - apart) < 4 * spread
    assert apart > 20 * spread  # else the test could not fail


def test_levels_fall_from_the_greatest_to_the_least_and_to_zero() -> None:
    levels = CONFIG.levels(18)
    assert (levels[0], levels[-1]) == (pytest.approx(80.0), 0.0)
    assert levels[-2] == pytest.approx(0.002)
    roots = torch.tensor(levels[:-1], dtype=torch.float64) ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[0].expand(17))
    assert CONFIG.levels(1) == [pytest.approx(80.0), 0.0]


def test_training_levels_are_lognormal() -> None:
    drawn = CONFIG.training_sigma(torch.randn(100_000, generator=torch.Generator().manual_seed(0))).log()
    assert drawn.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert drawn.std().item() == pytest.approx(1.2, abs=0.02)


def test_deterministic_sampler_is_of_second_order(mixture) -> None:
    noise = torch.special.ndtri((torch.arange(201, dtype=torch.float64) + 0.5) / 201)[:, None]
    finest = heun(exact(mixture), noise, CONFIG.levels(1024))
    errors = [(heun(exact(mixture), noise, CONFIG.levels(n)) - finest).abs().mean().item() for n in (64, 128, 256)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(1.8 < order < 2.3 for order in orders), (errors, orders)


@pytest.mark.parametrize(("steps", "churn", "bound"), [(128, Churn(), 0.02), (32, Churn(), 0.04), (32, STILL, 0.02)])
def test_samples_are_the_mixtures(mixture, steps: int, churn: Churn, bound: float) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6000, 1, generator=generator, dtype=torch.float64)
    drawn = heun(exact(mixture), noise, CONFIG.levels(steps), churn, generator)
    assert mixture.distance(drawn) < bound
    nearest = (drawn - mixture.means.double()).abs().argmin(1)
    shares = torch.bincount(nearest, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, mixture.weights, atol=0.03, rtol=0)


def test_churn_forgets_where_a_sample_began(mixture) -> None:
    """Else the stochastic sampler would be the deterministic one under another name."""
    generator = torch.Generator().manual_seed(0)
    same = torch.zeros(2000, 1, dtype=torch.float64)
    still = heun(exact(mixture), same, CONFIG.levels(32))
    stirred = heun(exact(mixture), same, CONFIG.levels(32), Churn(), generator)
    assert still.std() < 1e-12
    assert mixture.distance(stirred) < 0.06


def test_noise_given_and_noise_drawn_are_the_same() -> None:
    noise = torch.randn(5, 2)
    levels = CONFIG.levels(8)
    given = torch.stack([torch.randn(5, 2, generator=g) for g in [torch.Generator().manual_seed(3)] for _ in range(8)])
    churned = [i for i in range(8) if Churn().share(levels[i], 8) > 0]
    placed = torch.zeros_like(given)
    placed[churned] = given[: len(churned)]  # a generator is asked only where something is churned

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma.to(x.dtype)[:, None] ** 2)

    drawn = heun(denoise, noise, levels, Churn(), torch.Generator().manual_seed(3))
    assert torch.equal(drawn, heun(denoise, noise, levels, Churn(), placed))


def test_churn_never_more_than_doubles_the_variance_and_keeps_to_its_range() -> None:
    churn = Churn()
    assert churn.share(1.0, 128) == pytest.approx(math.sqrt(2) - 1)
    assert churn.share(1.0, 1000) == pytest.approx(0.08)
    assert churn.share(0.01, 8) == churn.share(60.0, 8) == 0.0


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="sigma_min"):
        EdmConfig(sigma_min=1.0, sigma_max=0.5)
    with pytest.raises(ConfigError, match="at least 1 step"):
        CONFIG.levels(0)
    with pytest.raises(ConfigError, match="fresh noise"):
        heun(lambda x, _: x, torch.zeros(1, 1), CONFIG.levels(4), Churn())
