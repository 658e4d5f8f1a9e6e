"""Guidance against closed forms: Gaussians whose conditional is known, and a mixture whose modes must not be mixed."""

import pytest
import torch

from diffusion_policy.diffusion.guidance import guided
from diffusion_policy.diffusion.process import PREDICTION_TYPES, DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.errors import ConfigError

FIRST = torch.tensor([1.0, 0.0]).double()
"""Weights that hold the first of two numbers."""


def process_of(prediction_type="sample", T=100):
    config = DiffusionConfig(num_train_timesteps=T, prediction_type=prediction_type, clip_sample=False)
    return DiffusionProcess(config).double()


def gaussian(process, covariance):
    """Returns the exact denoiser of a Gaussian around 0."""

    def denoise(x, t):
        a, s = process.a[t[0]], process.s[t[0]]
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(2).double())
        return process.from_x0(x @ gain.T, x, t)

    return denoise


def two_ways(process):
    """Returns the exact denoiser of two equal Gaussians at +-(0.7, 0.7), widths 0.1."""
    means = torch.tensor([[-0.7, -0.7], [0.7, 0.7]]).double()

    def denoise(x, t):
        a, s = process.a[t[0]], process.s[t[0]]
        residual, variance = x[:, None] - a * means, (a * 0.1) ** 2 + s**2  # (B, 2, 2)
        share = (-residual.square().sum(-1) / (2 * variance)).softmax(-1)
        x0 = (share[..., None] * (means + a * 0.01 / variance * residual)).sum(1)
        return process.from_x0(x0, x, t)

    return denoise


def draw(process, denoise, steps=100, rows=20_000, name="ddim"):
    generator = torch.Generator().manual_seed(0)
    sampler = Sampler(process, SamplerConfig(name=name, num_inference_steps=steps))
    noise = torch.randn(rows, 2, generator=generator).double()
    more = torch.randn(sampler.num_noises, rows, 2, generator=generator).double()
    return sampler(denoise, noise, more)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_from_x0_is_to_x0_backwards(prediction_type):
    process, t = process_of(prediction_type), torch.tensor([0, 50, 99])
    output, x = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(process.from_x0(process.to_x0(output, x, t), x, t), output)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_independent_gaussians_agree_exactly_where_held_and_nothing_else_changes(prediction_type):
    process = process_of(prediction_type)
    denoise, known = gaussian(process, torch.eye(2).double()), torch.tensor([[0.8, 0.3]]).double()
    held = guided(process, denoise, known, FIRST, data_std=1.0, max_gain=1e6)
    x, t = torch.randn(1, 2, generator=torch.Generator().manual_seed(1)).double(), torch.tensor([70])
    x0, plain = process.to_x0(held(x, t), x, t), process.to_x0(denoise(x, t), x, t)
    assert torch.allclose(x0[0, 0], known[0, 0])
    assert torch.allclose(x0[0, 1], plain[0, 1])


def test_without_weight_samples_are_what_they_were():
    process = process_of("epsilon")
    denoise = two_ways(process)
    free = guided(process, denoise, torch.zeros(1, 2).double(), torch.zeros(2).double())
    assert torch.allclose(draw(process, free, rows=50), draw(process, denoise, rows=50))


@pytest.mark.parametrize(("name", "steps"), [("ddim", 100), ("dpmpp_2m", 30), ("ddpm", 100)])
def test_what_is_free_follows_what_is_held(name, steps):
    process, correlation = process_of(), 0.9
    denoise = gaussian(process, torch.tensor([[1, correlation], [correlation, 1]]).double())
    known = torch.tensor([[0.8, 0.0]]).double()
    held, free = draw(process, guided(process, denoise, known, FIRST, data_std=1.0), steps, name=name).T
    assert (held - 0.8).abs().max() < 0.02
    assert abs(free.mean() - correlation * 0.8) < 0.12  # 0.72; 0 where nothing is held
    assert 0.3 < free.std() < 0.6  # sqrt(1 - 0.81) = 0.44; 1 where nothing is held


def test_a_mode_that_was_begun_is_gone_on_with():
    process = process_of()
    known = torch.tensor([[0.75, 0.0]]).double()
    alone = draw(process, two_ways(process), steps=50)
    begun = draw(process, guided(process, two_ways(process), known, FIRST), steps=50)
    assert 0.48 < (alone[:, 1] > 0).double().mean() < 0.52
    assert (begun[:, 1] > 0).double().mean() > 0.85
    assert (begun[:, 0] - 0.75).abs().mean() < 0.05


def test_gradients_end_at_the_guidance_and_inference_needs_no_caller_to_allow_them():
    process = process_of()
    with torch.no_grad():
        known = torch.zeros(1, 2).double()
        answer = guided(process, two_ways(process), known, FIRST)(torch.ones(3, 2).double(), torch.tensor([9, 9, 9]))
    assert not answer.requires_grad
    for wrong in ({"max_gain": 0.5}, {"data_std": 0.0}):
        with pytest.raises(ConfigError, match="expected max_gain >= 1 and data_std > 0"):
            guided(process, two_ways(process), known, FIRST, **wrong)


def test_narrow_data_are_held_where_the_network_hardly_lets_itself_be_pulled():
    """A policy that knows what to do: its samples lie within 0.05, and what is committed three of these aside."""
    process = process_of()
    denoise = gaussian(process, 0.05**2 * torch.tensor([[1, 0.9], [0.9, 1]]).double())
    known = torch.tensor([[0.15, 0.0]]).double()
    rules = ({"data_std": 1.0, "max_gain": 5.0}, {}, {"data_std": 0.05, "max_gain": 1e6})
    found = [draw(process, guided(process, denoise, known, FIRST, **rule), steps=10) for rule in rules]
    assert all((each[:, 0] - 0.15).abs().max() < 1e-6 for each in found)
    weak, usual, exact = (each[:, 1].mean() for each in found)
    assert weak < usual < exact
    assert abs(exact - 0.9 * 0.15) < 0.05  # the exact conditional's mean, where r^2 is that of the data
