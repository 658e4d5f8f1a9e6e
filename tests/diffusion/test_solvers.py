"""The samplers against mathematics: order on an exact ODE, distributions on an exact mixture."""

import dataclasses
import itertools
import math

import pytest
import torch

from diffusion_policy.diffusion.process import DiffusionConfig, DiffusionProcess, Parameterization
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.diffusion.schedule import Grid
from diffusion_policy.diffusion.solvers import ddim, ddim_table, dpmpp_2m, dpmpp_2m_table, heun, heun_table

START, END = math.log(0.05), math.log(20.0)  # log-SNR


def _continuous_grid(N: int) -> Grid:
    """N steps of the continuous process, equal in log-SNR: integer timesteps would put a floor under the error."""
    alpha_bar = torch.sigmoid(2 * torch.linspace(START, END, N + 1, dtype=torch.float64))
    return Grid(tuple(range(N)), alpha_bar[:-1], alpha_bar[1:])


def _runge_kutta(mixture, x: torch.Tensor, steps: int = 1000) -> torch.Tensor:
    """Returns the probability-flow ODE's end: d(x/a) = (E[x0 | x] - x/a) d(log-SNR)."""

    def slope(y, log_snr):
        a, s = math.sqrt(1 / (1 + math.exp(-2 * log_snr))), math.sqrt(1 / (1 + math.exp(2 * log_snr)))
        return mixture.x0_mean(a * y, a, s) - y

    h = (END - START) / steps
    y = x / math.sqrt(1 / (1 + math.exp(-2 * START)))
    for i in range(steps):
        at = START + i * h
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        k4 = slope(y + h * k3, at + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y * math.sqrt(1 / (1 + math.exp(-2 * END)))


@pytest.mark.parametrize(
    ("loop", "table", "order"), [(ddim, ddim_table, 1), (heun, heun_table, 2), (dpmpp_2m, dpmpp_2m_table, 2)]
)
def test_solver_has_its_order_on_an_exact_score(loop, table, order, mixture):
    mixture = dataclasses.replace(mixture, std=0.3)  # narrow modes: a point on a watershed outweighs all the others
    x = torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = _runge_kutta(mixture, x)
    errors = []
    for N in (40, 80, 160, 320):
        grid = _continuous_grid(N)
        a, s = grid.alpha_bar.sqrt(), (1 - grid.alpha_bar).sqrt()

        def denoise(x, t, a=a, s=s):
            return mixture.x0_mean(x, a[t, None], s[t, None])

        ends = loop(denoise, Parameterization("sample"), x, grid.timesteps, table(grid), x.new_empty(0))
        errors.append((ends - exact).square().mean().sqrt().item())
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(order, abs=0.12), (errors, orders)
    assert orders[-2] == pytest.approx(order, abs=0.2), (errors, orders)


@pytest.mark.parametrize("N", [5, 12, 20])
def test_dpmpp_2m_equals_diffusers_to_rounding(N, smooth_net):
    """The order does not see a mistaken ratio of steps (its errors telescope); another implementation does."""
    process = DiffusionProcess(DiffusionConfig(clip_sample=False, prediction_type="sample"))
    oracle = Sampler(process, SamplerConfig("diffusers", N, scheduler="DPMSolverMultistepScheduler"))
    noise = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    ours = Sampler(process, SamplerConfig("dpmpp_2m", N))(smooth_net, noise)
    torch.testing.assert_close(ours, oracle(smooth_net, noise), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "distance"),
    [
        (SamplerConfig("ddpm", 100), 0.025),
        (SamplerConfig("ddim", 100, eta=1.0), 0.025),
        (SamplerConfig("ddim", 50), 0.025),
        (SamplerConfig("ddim", 16), 0.045),
        (SamplerConfig("dpmpp_2m", 16), 0.04),
        (SamplerConfig("heun", 16), 0.04),
    ],
    ids=lambda v: f"{v.name}-{v.num_inference_steps}" if isinstance(v, SamplerConfig) else "",
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_sampler_draws_from_the_mixture(config, distance, prediction_type, mixture):
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type))
    generator = torch.Generator().manual_seed(0)
    count = 10_000

    def exact(x, t):
        a, s = process.a[t, None], process.s[t, None]
        x0 = mixture.x0_mean(x, a, s)
        return process.target(x0, (x - a * x0) / s, t)

    sampler = Sampler(process, config)
    step_noise = torch.randn(sampler.num_noises, count, 1, generator=generator)
    drawn = process.sample(exact, torch.randn(count, 1, generator=generator), sampler, step_noise=step_noise).flatten()
    assert mixture.distance(drawn) < distance
    mode = (drawn[:, None] - mixture.means).abs().argmin(1)
    for k in range(3):
        assert (mode == k).float().mean().item() == pytest.approx(mixture.weights[k].item(), abs=0.04)
        assert 0.065 < drawn[mode == k].std().item() < 0.11  # the last step, to the mean, takes some: s_5 is 0.12
