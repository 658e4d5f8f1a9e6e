import itertools
import pickle

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import nn

from diffusion_policy.diffusion.process import PREDICTION_TYPES, DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import SAMPLERS, Sampler, SamplerConfig
from diffusion_policy.diffusion.schedule import BETA_SCHEDULES, TIMESTEP_SPACINGS
from diffusion_policy.errors import ConfigError, ObservationError, UnknownNameError

OWN = ("ddim", "ddpm", "dpmpp_2m", "heun")
CASES = list(itertools.product(BETA_SCHEDULES.names(), PREDICTION_TYPES, TIMESTEP_SPACINGS, [True, False]))


def _noises(sampler: Sampler, noise: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Returns the step noise that a library drawing one tensor a step from this seed would use."""
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(noise.shape, generator=generator) for _ in range(sampler.num_noises)]
    return torch.stack(draws) if draws else noise.new_empty(0, *noise.shape)


def _noise(B: int = 5) -> torch.Tensor:
    return torch.randn(B, 3, 2, generator=torch.Generator().manual_seed(0))


def _oracle(cls, config: DiffusionConfig, spacing: str):
    """A scheduler of diffusers for `config`; by its own schedule's name where it has one."""
    named = config.beta_schedule in ("linear", "scaled_linear", "squaredcos_cap_v2")
    return cls(
        num_train_timesteps=config.num_train_timesteps,
        prediction_type=config.prediction_type,
        clip_sample=config.clip_sample,
        clip_sample_range=config.clip_sample_range,
        timestep_spacing=spacing,
        **({"beta_schedule": config.beta_schedule} if named else {"trained_betas": config.betas().tolist()}),
        **({"variance_type": config.variance_type} if cls is DDPMScheduler else {}),
    )


def _run_oracle(scheduler, denoise, x, N, **step):
    scheduler.set_timesteps(N)
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, t.expand(len(x))), t, x, **step).prev_sample
    return x


@pytest.mark.parametrize("N", [10, 13])  # 13 does not divide 100
@pytest.mark.parametrize(("schedule", "prediction_type", "spacing", "clip"), CASES)
def test_ddim_equals_diffusers_bit_for_bit(schedule, prediction_type, spacing, clip, N, smooth_net):
    config = DiffusionConfig(beta_schedule=schedule, prediction_type=prediction_type, clip_sample=clip)
    process = DiffusionProcess(config)
    sampler = Sampler(process, SamplerConfig("ddim", N, timestep_spacing=spacing))
    ours = process.sample(smooth_net, _noise(), sampler)
    assert torch.equal(ours, _run_oracle(_oracle(DDIMScheduler, config, spacing), smooth_net, _noise(), N))


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize(("schedule", "prediction_type", "spacing", "clip"), CASES[::5])
def test_ddim_with_noise_equals_diffusers_bit_for_bit(schedule, prediction_type, spacing, clip, eta, smooth_net):
    config = DiffusionConfig(beta_schedule=schedule, prediction_type=prediction_type, clip_sample=clip)
    sampler = Sampler(DiffusionProcess(config), SamplerConfig("ddim", 10, eta, spacing))
    ours = sampler(smooth_net, _noise(), _noises(sampler, _noise()))
    oracle, generator = _oracle(DDIMScheduler, config, spacing), torch.Generator().manual_seed(1)
    assert torch.equal(ours, _run_oracle(oracle, smooth_net, _noise(), 10, eta=eta, generator=generator))


@pytest.mark.parametrize(
    ("schedule", "prediction_type", "spacing", "clip", "N"),
    [(*case, 10) for case in CASES] + [(*case, 100) for case in CASES[::4]],
)
def test_ddpm_equals_diffusers(schedule, prediction_type, spacing, clip, N, smooth_net):
    config = DiffusionConfig(beta_schedule=schedule, prediction_type=prediction_type, clip_sample=clip)
    sampler = Sampler(DiffusionProcess(config), SamplerConfig("ddpm", N, timestep_spacing=spacing))
    ours = sampler(smooth_net, _noise(), _noises(sampler, _noise()))
    oracle, generator = _oracle(DDPMScheduler, config, spacing), torch.Generator().manual_seed(1)
    theirs = _run_oracle(oracle, smooth_net, _noise(), N, generator=generator)
    if spacing == "trailing" and N < 100:  # theirs adds noise of std 1e-10 to the finished sample
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-6)
    else:
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variance_type", ["fixed_small_log", "fixed_large"])
def test_ddpm_equals_diffusers_for_every_variance(variance_type, smooth_net):
    config = DiffusionConfig(variance_type=variance_type)
    sampler = Sampler(DiffusionProcess(config), SamplerConfig("ddpm", 100))
    ours = sampler(smooth_net, _noise(), _noises(sampler, _noise()))
    oracle, generator = _oracle(DDPMScheduler, config, "trailing"), torch.Generator().manual_seed(1)
    assert torch.equal(ours, _run_oracle(oracle, smooth_net, _noise(), 100, generator=generator))


@pytest.mark.parametrize("name", OWN)
def test_sampler_clips_to_the_range_that_is_set(name, smooth_net):
    def run(**settings):
        sampler = Sampler(DiffusionProcess(DiffusionConfig(**settings)), SamplerConfig(name))
        return sampler(smooth_net, 3 * _noise(), _noises(sampler, _noise()))

    assert run(clip_sample=False).abs().max() > 1
    assert run().abs().max() <= 1
    assert run(clip_sample_range=0.4).abs().max() <= 0.4


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_sampler_ends_at_the_point_a_network_is_sure_of(name, prediction_type):
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type))
    point = torch.tensor([0.3, -0.6])

    def sure(x, t):
        a, s = process.a[t].reshape(-1, 1, 1), process.s[t].reshape(-1, 1, 1)
        x0 = point.expand_as(x)
        return process.target(x0, (x - a * x0) / s, t)

    for N in (1, 4, 100):
        sampler = Sampler(process, SamplerConfig(name, N))
        ends = sampler(sure, _noise(), _noises(sampler, _noise()))
        torch.testing.assert_close(ends, point.expand_as(ends), atol=2e-3, rtol=0)  # a_T is 5e-4: x/a in float32


@pytest.mark.parametrize(
    ("name", "eta", "noises", "evaluations"),
    [("ddim", 0, 0, 10), ("ddim", 1, 9, 10), ("ddpm", 0, 9, 10), ("dpmpp_2m", 0, 0, 10), ("heun", 0, 0, 19)],
)
def test_sampler_uses_the_noises_and_evaluations_it_states(name, eta, noises, evaluations, smooth_net):
    sampler = Sampler(DiffusionProcess(), SamplerConfig(name, 10, eta))
    assert sampler.num_noises == noises
    calls = []
    step_noise = _noises(sampler, _noise()).requires_grad_(noises > 0)
    out = sampler(lambda x, t: (calls.append(t), 0.5 * x)[1], _noise(), step_noise)
    assert len(calls) == evaluations
    assert calls[0].tolist() == [99] * 5
    assert calls[0].dtype == torch.long
    if noises:
        (grad,) = torch.autograd.grad(out.sum(), step_noise)
        assert (grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", OWN)
def test_sampler_treats_every_row_alone(name, smooth_net):
    sampler = Sampler(DiffusionProcess(), SamplerConfig(name, 6))
    noise = _noise().double()
    step_noise = _noises(sampler, _noise()).double()
    together = sampler(smooth_net, noise, step_noise)
    alone = [sampler(smooth_net, noise[i : i + 1], step_noise[:, i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", OWN)
def test_sampler_gradient_equals_finite_difference(name):
    process = DiffusionProcess(DiffusionConfig(num_train_timesteps=5, beta_schedule="vp", prediction_type="sample"))
    sampler = Sampler(process, SamplerConfig(name, 5))
    noise = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step_noise = _noises(sampler, noise.float()).double()
    weight = torch.tensor([0.4, -0.2, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, z: process.sample(lambda x, t: torch.sin(w * x + 0.1), z, sampler, step_noise=step_noise),
        (weight, noise.requires_grad_()),
    )


@pytest.mark.parametrize("name", OWN)
def test_sampler_exports_with_any_batch_and_gives_the_same(name):
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.process, self.net = DiffusionProcess(), nn.Linear(2, 2)
            self.sampler = Sampler(self.process, SamplerConfig(name, 3))

        def forward(self, noise, step_noise):
            return self.process.sample(
                lambda x, t: self.net(x) + t.reshape(-1, 1, 1) / 100, noise, self.sampler, step_noise=step_noise
            )

    torch.manual_seed(0)
    policy = Policy().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    step_noise = _noises(policy.sampler, _noise())
    shapes = {"noise": {0: batch}, "step_noise": {1: batch}}
    exported = torch.export.export(policy, (_noise(), step_noise), dynamic_shapes=shapes).module()
    for B in (5, 3):
        step_noise = _noises(policy.sampler, _noise(B))
        assert torch.equal(exported(_noise(B), step_noise), policy(_noise(B), step_noise))


@pytest.mark.parametrize("name", OWN)
def test_sampler_of_a_half_precision_module_keeps_exact_coefficients(name, smooth_net):
    exact, half = (
        Sampler(process, SamplerConfig(name, 5)) for process in (DiffusionProcess(), DiffusionProcess().half())
    )
    step_noise = _noises(exact, _noise())
    assert torch.equal(exact(smooth_net, _noise(), step_noise), half(smooth_net, _noise(), step_noise))


def test_sampler_can_be_pickled(smooth_net):
    sampler = Sampler(DiffusionProcess(), SamplerConfig("dpmpp_2m", 4))
    again = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(again(smooth_net, _noise()), sampler(smooth_net, _noise()))


def test_sampler_refuses_missing_or_misshapen_step_noise(smooth_net):
    sampler = Sampler(DiffusionProcess(), SamplerConfig("ddpm", 10))
    with pytest.raises(ObservationError, match=r"\(9, 5, 3, 2\), but got none"):
        sampler(smooth_net, _noise())
    with pytest.raises(ObservationError, match=r"got \(10, 5, 3, 2\)"):
        sampler(smooth_net, _noise(), torch.zeros(10, 5, 3, 2))


def test_sampler_settings_errors_say_what_would_have_worked():
    with pytest.raises(UnknownNameError, match="ddim, ddpm, diffusers, dpmpp_2m, heun"):
        Sampler(DiffusionProcess(), SamplerConfig("dpm"))
    with pytest.raises(ConfigError, match=r"\[1, 100\]"):
        Sampler(DiffusionProcess(), SamplerConfig("ddim", 101))
    with pytest.raises(ConfigError, match=r"eta must be in \[0, 1\]"):
        SamplerConfig(eta=1.5)
    with pytest.raises(ConfigError, match="sampler ddpm has none"):
        SamplerConfig("ddpm", eta=0.5)
    assert set(OWN) < set(SAMPLERS.names())
