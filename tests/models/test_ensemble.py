"""Several denoisers as one: who learns from what, and what they say together."""

from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion_policy.errors import ConfigError, UnknownNameError
from diffusion_policy.models import unet1d as _registers_unet1d  # noqa: F401
from diffusion_policy.models.ensemble import Ensemble

MEMBER = {"name": "unet1d", "down_dims": [8, 16], "n_groups": 4, "embed_dim": 8, "kernel_size": 3}


def ensemble(**settings: Any) -> Ensemble:
    torch.manual_seed(0)
    settings = {"action_dim": 2, "cond_dim": 5, "pred_horizon": 4, "members": 3, "member": MEMBER, **settings}
    return Ensemble(**settings)


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, cond = torch.randn(batch, 4, 2, generator=generator), torch.randn(batch, 5, generator=generator)
    return x, torch.randint(100, (batch,), generator=generator), cond


@pytest.mark.parametrize("hidden_dims", [(), (16, 7)])
def test_ensemble_says_the_mean_of_its_members(hidden_dims: tuple[int, ...]) -> None:
    net = ensemble(hidden_dims=hidden_dims).eval()
    x, t, cond = inputs(5)
    alone = [member(x, t, mlp(cond)) for member, mlp in zip(net.members, net.mlps, strict=True)]
    torch.testing.assert_close(net(x, t, cond), sum(alone) / 3)
    assert not torch.allclose(alone[0], alone[1])


def test_ensemble_teaches_each_member_its_own_windows() -> None:
    net = ensemble(hidden_dims=(6,)).train()
    x, t, cond = inputs(8)  # not a multiple of the members: 3, 3 and 2 windows
    out = net(x, t, cond)
    for k in range(3):
        torch.testing.assert_close(out[k::3], net.members[k](x[k::3], t[k::3], net.mlps[k](cond[k::3])))
    out[1::3].square().sum().backward()
    learned = [
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in [*member.parameters(), *mlp.parameters()])
        for member, mlp in zip(net.members, net.mlps, strict=True)
    ]
    assert learned == [False, True, False]


def test_ensemble_trains_on_fewer_windows_than_members() -> None:
    net = ensemble().train()
    net(*inputs(2)).sum().backward()


def test_ensemble_refuses_what_is_none() -> None:
    with pytest.raises(ConfigError, match=r"denoiser\.members must be at least 2, but got 1"):
        ensemble(members=1)
    with pytest.raises(ConfigError, match=r"denoiser\.member must be the settings of one, .* but got None"):
        ensemble(member=None)
    with pytest.raises(ConfigError, match=r"hidden_dims must be positive, but got \[-1\]"):
        ensemble(hidden_dims=(-1,))
    with pytest.raises(UnknownNameError, match="unknown backbone 'unet2d'"):
        ensemble(member={"name": "unet2d"})
