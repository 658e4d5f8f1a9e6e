import sys

import diffusers
import pytest
import torch

from diffusion_policy.diffusion.bridge import DiffusersSampler
from diffusion_policy.diffusion.process import DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.errors import ConfigError, UnknownNameError

DETERMINISTIC = (
    "DDIMScheduler",
    "LMSDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "SASolverScheduler",
)


def _noise() -> torch.Tensor:
    return torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))


def test_bridge_ddim_equals_our_ddim_bit_for_bit(smooth_net):
    for config in (DiffusionConfig(), DiffusionConfig(beta_schedule="vp", prediction_type="v_prediction")):
        process = DiffusionProcess(config)
        bridged = Sampler(process, SamplerConfig("diffusers", 10, scheduler="DDIMScheduler"))
        assert torch.equal(bridged(smooth_net, _noise()), Sampler(process)(smooth_net, _noise()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy 2 and diffusers
def test_bridge_unipc_equals_a_plain_diffusers_loop(smooth_net):
    process = DiffusionProcess(DiffusionConfig(clip_sample=False))
    scheduler = diffusers.UniPCMultistepScheduler(100, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    scheduler.set_timesteps(8)
    x = _noise()
    for t in scheduler.timesteps:
        x = scheduler.step(smooth_net(x, t.expand(5)), t, x).prev_sample
    sampler = Sampler(process, SamplerConfig("diffusers", 8, scheduler="UniPCMultistepScheduler"))
    assert torch.equal(sampler(smooth_net, _noise()), x)


@pytest.mark.parametrize("scheduler", DETERMINISTIC)
def test_bridge_finds_the_mixture_clips_and_repeats(scheduler, mixture, smooth_net):
    process = DiffusionProcess()
    sampler = DiffusersSampler(process, scheduler, 20)
    assert sampler.num_noises == 0
    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))

    def exact(x, t):
        a, s = process.a[t, None], process.s[t, None]
        return (x - a * mixture.x0_mean(x, a, s)) / s

    assert mixture.distance(sampler(exact, noise, noise[None][:0])) < 0.06
    assert (
        DiffusersSampler(DiffusionProcess(DiffusionConfig(clip_sample=False)), scheduler, 20)(
            smooth_net, 3 * _noise(), noise[None][:0]
        )
        .abs()
        .max()
        > 1.5
    )
    runs = [sampler(smooth_net, 3 * _noise(), noise[None][:0]) for _ in range(2)]
    assert torch.equal(*runs)
    assert runs[0].abs().max() < 1.25  # those that extrapolate overshoot a little


def test_bridge_takes_options_and_instances(smooth_net):
    process = DiffusionProcess()
    by_name = DiffusersSampler(process, "DPMSolverMultistepScheduler", 8, {"solver_order": 3})
    by_instance = DiffusersSampler(process, diffusers.DPMSolverMultistepScheduler(solver_order=3), 8)
    default = DiffusersSampler(process, "DPMSolverMultistepScheduler", 8)
    none = _noise()[None][:0]
    assert torch.equal(by_name(smooth_net, _noise(), none), by_instance(smooth_net, _noise(), none))
    assert not torch.equal(by_name(smooth_net, _noise(), none), default(smooth_net, _noise(), none))


def test_bridge_stochastic_scheduler_uses_the_noise_passed_in(smooth_net):
    config = SamplerConfig(
        "diffusers", 8, scheduler="DPMSolverMultistepScheduler", scheduler_options={"algorithm_type": "sde-dpmsolver++"}
    )
    sampler = Sampler(DiffusionProcess(), config)
    assert sampler.num_noises == 8
    step_noise = torch.randn(8, 5, 3, 2)
    state = torch.get_rng_state()
    first = sampler(smooth_net, _noise(), step_noise)
    assert torch.equal(first, sampler(smooth_net, _noise(), step_noise))
    assert not torch.equal(first, sampler(smooth_net, _noise(), -step_noise))
    assert torch.equal(torch.get_rng_state(), state)


def test_bridge_lets_gradients_through():
    sampler = DiffusersSampler(DiffusionProcess(), "UniPCMultistepScheduler", 4)
    weight = torch.tensor(0.1, requires_grad=True)
    sampler(lambda x, t: weight * x, _noise(), _noise()[None][:0]).sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs() > 0


@pytest.mark.parametrize(
    ("scheduler", "N", "options", "message"),
    [
        ("UniPCMultistepScheduler", 100, {}, r"\[1, 99\].*multistep"),
        ("DEISMultistepScheduler", 120, {}, r"\[1, 99\].*multistep"),
        ("DDIMScheduler", 101, {}, r"\[1, 100\]"),
        ("DDIMScheduler", 29, {}, "visits timesteps 99 to -1"),
        ("DDPMScheduler", 10, {}, "use our ddpm"),
        ("EulerAncestralDiscreteScheduler", 10, {}, "draws noise"),
        ("KDPM2DiscreteScheduler", 10, {}, "fractional timesteps"),
        ("PNDMScheduler", 20, {}, "diverges with 29 evaluations"),
        ("PNDMScheduler", 2, {}, "cannot sample this process"),
        ("HeunDiscreteScheduler", 2, {}, "diverges"),
        ("DPMSolverMultistepScheduler", 10, {"algorithm_type": "euler"}, "cannot sample.*euler"),
        ("DDIMInverseScheduler", 10, {}, "expected to begin at 99"),
        ("FlowMatchEulerDiscreteScheduler", 10, {}, "another kind of process"),
        ("DDIMScheduler", 10, {"timestep_spacing": "leading"}, "cannot set timestep_spacing"),
        ("DDIMScheduler", 10, {"solver_order": 2}, "cannot set solver_order.*thresholding"),
    ],
)
def test_bridge_refuses_what_diffusers_gets_wrong(scheduler, N, options, message):
    with pytest.raises(ConfigError, match=message):
        DiffusersSampler(DiffusionProcess(), scheduler, N, options)


def test_bridge_refuses_what_a_scheduler_cannot_predict():
    with pytest.raises(ConfigError, match="cannot sample this process"):
        DiffusersSampler(DiffusionProcess(DiffusionConfig(prediction_type="sample")), "PNDMScheduler", 10)


def test_bridge_refuses_unknown_schedulers_and_lists_known_ones():
    for name in ("", "UniPC", "DDIMSheduler", "UNet2DModel"):
        with pytest.raises(UnknownNameError, match="UniPCMultistepScheduler"):
            DiffusersSampler(DiffusionProcess(), name, 10)


def test_bridge_refuses_a_result_that_is_not_finite():
    sampler = DiffusersSampler(DiffusionProcess(), "DDIMScheduler", 4)
    with pytest.raises(ConfigError, match="not finite"):
        sampler(lambda x, t: x * torch.nan, _noise(), _noise()[None][:0])


def test_bridge_without_diffusers_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match="pip install diffusers"):
        DiffusersSampler(DiffusionProcess(), "DDIMScheduler", 4)
