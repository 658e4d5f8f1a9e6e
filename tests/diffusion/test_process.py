import subprocess
import sys

import pytest
import torch
from diffusers import DDPMScheduler

from diffusion_policy.diffusion.process import PREDICTION_TYPES, DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.schedule import BETA_SCHEDULES
from diffusion_policy.errors import ConfigError


def _batch(B: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, B, 4, 2, generator=generator)
    return x0, eps, torch.randint(0, 100, (B,), generator=generator)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_process_noising_and_velocity_equal_diffusers_bit_for_bit(schedule):
    x0, eps, t = _batch()
    process = DiffusionProcess(DiffusionConfig(beta_schedule=schedule, prediction_type="v_prediction"))
    oracle = DDPMScheduler(num_train_timesteps=100, beta_schedule=schedule)
    assert torch.equal(process.add_noise(x0, eps, t), oracle.add_noise(x0, eps, t))
    assert torch.equal(process.target(x0, eps, t), oracle.get_velocity(x0, eps, t))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("schedule", BETA_SCHEDULES.names())
def test_process_recovers_sample_and_noise_from_a_perfect_prediction(schedule, prediction_type):
    x0, eps, t = (v.double() if v.is_floating_point() else v for v in _batch())
    process = DiffusionProcess(DiffusionConfig(beta_schedule=schedule, prediction_type=prediction_type)).double()
    x_t, output = process.add_noise(x0, eps, t), process.target(x0, eps, t)
    # float32 tables: a^2 + s^2 = 1 to 1e-7, which dividing by a small a or s magnifies
    torch.testing.assert_close(process.to_x0(output, x_t, t), x0, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(process.to_eps(output, x_t, t), eps, atol=1e-6, rtol=1e-6)


def test_process_noises_each_token_by_its_own_timestep():
    x0, eps, _ = _batch()
    process = DiffusionProcess()
    t = torch.arange(24).reshape(6, 4) * 4
    x_t, v = process.add_noise(x0, eps, t), process.target(x0, eps, t)
    for token in range(4):
        assert torch.equal(x_t[:, token], process.add_noise(x0[:, token], eps[:, token], t[:, token]))
        assert torch.equal(v[:, token], process.target(x0[:, token], eps[:, token], t[:, token]))
    assert torch.equal(process.add_noise(x0, eps, torch.full((6, 4), 7)), process.add_noise(x0, eps, torch.tensor(7)))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_loss_is_zero_for_a_perfect_network_and_the_mean_square_otherwise(prediction_type):
    x0, eps, t = _batch()
    process = DiffusionProcess(DiffusionConfig(prediction_type=prediction_type))
    target = process.target(x0, eps, t)
    assert process.loss(lambda x, t: target, x0, noise=eps, t=t) == 0
    off = process.loss(lambda x, t: target + 0.5, x0, noise=eps, t=t)
    torch.testing.assert_close(off, torch.tensor(0.25))


def test_loss_shows_the_network_the_noisy_sample_and_its_timestep():
    x0, eps, t = _batch()
    process = DiffusionProcess()
    seen = []
    process.loss(lambda x, t: (seen.append((x, t)), x)[1], x0, noise=eps, t=t)
    assert torch.equal(seen[0][0], process.add_noise(x0, eps, t))
    assert torch.equal(seen[0][1], t)


def test_loss_mean_is_the_mean_of_none_whatever_weight_and_mask(smooth_net):
    x0, eps, t = _batch()
    process = DiffusionProcess()
    weight, mask = torch.rand(6), torch.rand(6, 4) > 0.4
    for extra in ({}, {"weight": weight}, {"mask": mask}, {"weight": weight, "mask": mask}):
        each = process.loss(smooth_net, x0, noise=eps, t=t, reduction="none", **extra)
        assert each.shape == (6,)
        assert torch.equal(process.loss(smooth_net, x0, noise=eps, t=t, **extra), each.mean())
    plain = process.loss(smooth_net, x0, noise=eps, t=t, reduction="none")
    weighted = process.loss(smooth_net, x0, noise=eps, t=t, weight=weight, reduction="none")
    assert torch.equal(weighted, weight * plain)


def test_loss_mask_keeps_exactly_the_named_steps(smooth_net):
    x0, eps, t = _batch()
    process = DiffusionProcess()
    mask = torch.tensor([1, 1, 0, 0], dtype=torch.bool).expand(6, 4).clone()
    mask[5] = False
    each = process.loss(smooth_net, x0, noise=eps, t=t, mask=mask, reduction="none")
    error = (smooth_net(process.add_noise(x0, eps, t), t) - eps).square()
    torch.testing.assert_close(each[:5], error[:5, :2].mean((1, 2)))
    assert each[5] == 0
    full = process.loss(smooth_net, x0, noise=eps, t=t, mask=torch.ones(6, 4))
    torch.testing.assert_close(full, process.loss(smooth_net, x0, noise=eps, t=t))


def test_sample_timesteps_cover_all_and_repeat_with_the_generator():
    process = DiffusionProcess(DiffusionConfig(num_train_timesteps=5))
    draw = [process.sample_timesteps(1000, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draw)
    assert draw[0].dtype == torch.long
    assert draw[0].bincount(minlength=5).min() > 150
    assert draw[0].max() == 4


def test_process_tables_are_no_part_of_a_checkpoint():
    process = DiffusionProcess()
    assert process.state_dict() == {}
    assert {name for name, _ in process.named_buffers()} == {"alpha_bar", "a", "s"}


@pytest.mark.parametrize(
    "settings",
    [
        {"prediction_type": "noise"},
        {"variance_type": "learned"},
        {"clip_sample_range": 0.0},
        {"beta_schedule": "cosine"},
        {"num_train_timesteps": 0},
    ],
)
def test_process_refuses_unknown_settings(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DiffusionProcess(DiffusionConfig(**settings))


def test_loss_refuses_an_unknown_reduction(smooth_net):
    x0, eps, t = _batch()
    with pytest.raises(ConfigError, match="mean or none"):
        DiffusionProcess().loss(smooth_net, x0, noise=eps, t=t, reduction="sum")


def test_sampling_imports_neither_diffusers_nor_scipy():
    code = (
        "import sys, torch\n"
        "from diffusion_policy.diffusion.process import DiffusionProcess\n"
        "from diffusion_policy.diffusion.samplers import Sampler\n"
        "import diffusion_policy.diffusion.bridge, diffusion_policy.diffusion.ema\n"
        "process = DiffusionProcess()\n"
        "process.sample(lambda x, t: x, torch.randn(2, 3), Sampler(process))\n"
        "print(sorted({'diffusers', 'scipy', 'hydra', 'zarr', 'gymnasium', 'mujoco'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
