"""What a diffusion policy is for: it keeps two ways round an obstacle apart, in their proportion.

The check of the notes' table (two homotopies, .6 / .4) that a mean-squared-error policy and a one-step sampler fail.
"""

import math

import pytest
import torch
from torch import Tensor

from diffusion_policy.diffusion.process import DiffusionConfig, DiffusionProcess
from diffusion_policy.diffusion.samplers import Sampler, SamplerConfig
from diffusion_policy.models.unet1d import ConditionalUnet1D

SHARE_LEFT = 0.6


def routes() -> Tensor:
    """Both routes (2, 16, 2) from (-1, 0) to (1, 0), left and right of the origin."""
    s = torch.linspace(0, 1, 16)
    x, y = 2 * s - 1, 0.8 * torch.sin(math.pi * s)
    return torch.stack((torch.stack((x, y), -1), torch.stack((x, -y), -1)))


def demonstrations(count: int, generator: torch.Generator) -> Tensor:
    left = torch.rand(count, generator=generator) < SHARE_LEFT
    chunks = routes()[(~left).long()]
    return (chunks + 0.02 * torch.randn(chunks.shape, generator=generator)).clamp(-1, 1)


def judged(chunks: Tensor) -> tuple[float, float]:
    """Returns the share of chunks that follow one route, and the left share among them."""
    distance = (chunks[:, None] - routes()).abs().amax(dim=(2, 3))  # (B, 2)
    follows = distance.amin(1) < 0.15
    left = distance.argmin(1) == 0
    return float(follows.float().mean()), float(left[follows].float().mean()) if follows.any() else float("nan")


@pytest.mark.slow
def test_diffusion_keeps_both_routes_in_proportion_where_regression_and_one_step_average_them() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    process = DiffusionProcess(DiffusionConfig(prediction_type="epsilon"))
    net = ConditionalUnet1D(2, 1, 16, down_dims=(32, 64, 128), embed_dim=64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    steps = 1000
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        x0 = demonstrations(128, generator)
        noise = torch.randn(x0.shape, generator=generator)
        t = process.sample_timesteps(128, generator)
        loss = process.loss(lambda x, at: net(x, at, torch.zeros(len(x), 1)), x0, noise=noise, t=t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()

    def sampled(num_inference_steps: int) -> tuple[float, float]:
        sampler = Sampler(process, SamplerConfig(num_inference_steps=num_inference_steps))
        with torch.inference_mode():
            start = torch.randn(512, 16, 2, generator=torch.Generator().manual_seed(1))
            return judged(sampler(lambda x, at: net(x, at, torch.zeros(len(x), 1)), start))

    follows, left = sampled(16)
    assert follows > 0.85
    assert abs(left - SHARE_LEFT) < 0.08
    assert sampled(1)[0] < 0.1  # the mean of the routes: straight through the obstacle
    mean = demonstrations(2000, generator).mean(0, keepdim=True)  # what a mean-squared-error policy predicts
    assert judged(mean)[0] == 0.0
