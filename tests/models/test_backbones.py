"""What holds for every registered backbone."""

from typing import Any

import pytest
import torch
from torch import nn

from diffusion_policy.models import ensemble as _registers_ensemble  # noqa: F401
from diffusion_policy.models import mlp_denoiser as _registers_mlp  # noqa: F401
from diffusion_policy.models import unet1d as _registers_unet1d  # noqa: F401
from diffusion_policy.models.denoiser import BACKBONES, make_denoiser

SMALL = {"down_dims": (16, 32), "n_groups": 4, "embed_dim": 16, "kernel_size": 3}
SETTINGS: dict[str, dict[str, Any]] = {"unet1d": SMALL, "ensemble": {"member": {"name": "unet1d", **SMALL}}}


def backbone(name: str) -> nn.Module:
    torch.manual_seed(0)
    return make_denoiser({"name": name, **SETTINGS.get(name, {})}, action_dim=2, cond_dim=6, pred_horizon=8)


@pytest.mark.parametrize("name", BACKBONES.names())
def test_backbone_keeps_shape_and_every_parameter_matters(name: str) -> None:
    net = backbone(name)
    x, t, cond = torch.randn(8, 8, 2), torch.arange(8) * 13, torch.randn(8, 6)
    out = net(x, t, cond)
    assert out.shape == x.shape
    out.square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", BACKBONES.names())
def test_backbone_rows_do_not_see_each_other_in_evaluation(name: str) -> None:
    net = backbone(name).double().eval()
    x, t, cond = torch.randn(4, 8, 2).double(), torch.tensor([0, 5, 50, 99]), torch.randn(4, 6).double()
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(x, t, cond), alone, rtol=1e-10, atol=1e-10)
