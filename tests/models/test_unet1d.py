"""The U-Net's facts: shapes, the published parameter layout, conditioning, refusals."""

import pytest
import torch

from diffusion_policy.errors import ConfigError, UnknownNameError
from diffusion_policy.models.denoiser import make_denoiser
from diffusion_policy.models.unet1d import ConditionalUnet1D

SMALL = {"down_dims": (16, 32), "n_groups": 4, "embed_dim": 16, "kernel_size": 3}


def small(**changes: object) -> ConditionalUnet1D:
    torch.manual_seed(0)
    return ConditionalUnet1D(2, 6, 8, **{**SMALL, **changes})  # type: ignore[arg-type]


def test_unet1d_output_depends_on_time_and_condition() -> None:
    net = small()
    x, cond = torch.randn(1, 8, 2), torch.randn(1, 6)
    base = net(x, torch.tensor([3]), cond)
    assert not torch.allclose(base, net(x, torch.tensor([4]), cond), atol=1e-5)
    assert not torch.allclose(base, net(x, torch.tensor([3]), cond + 1), atol=1e-5)


def test_unet1d_has_the_published_parameter_names_and_count() -> None:
    """Push-T state: Da 2, To 2, five numbers a step inpainted or 20 by FiLM; 256/512/1024, k 5, embed 256."""
    names = set(ConditionalUnet1D(2, 40, 16).state_dict())
    published = {
        "diffusion_step_encoder.1.weight",
        "diffusion_step_encoder.3.bias",
        "down_modules.0.0.blocks.0.block.0.weight",
        "down_modules.0.0.blocks.1.block.1.bias",
        "down_modules.0.0.cond_encoder.1.weight",
        "down_modules.0.0.residual_conv.weight",
        "down_modules.1.2.conv.weight",
        "mid_modules.1.blocks.0.block.0.weight",
        "up_modules.1.0.residual_conv.bias",
        "up_modules.1.2.conv.weight",
        "final_conv.0.block.0.weight",
        "final_conv.1.weight",
    }
    assert published <= names
    assert not any(name.startswith("up_modules.2") or "down_modules.2.2" in name for name in names)
    count = sum(p.numel() for p in ConditionalUnet1D(2, 40, 16).parameters())
    assert count == 65_783_298


def test_unet1d_finest_skip_is_computed_but_never_used() -> None:
    """The published oddity: n levels push skips, n - 1 pop them, so the finest skip reaches nothing."""
    net = small()
    x, t, cond = torch.randn(1, 8, 2), torch.tensor([3]), torch.randn(1, 6)
    seen: list[torch.Tensor] = []
    net.up_modules[0][0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    net(x, t, cond)
    assert len(net.up_modules) == len(net.down_modules) - 1
    assert [tuple(s.shape) for s in seen] == [(1, 4, 64)]  # mid (32) + coarsest skip (32), at T / 2


def test_unet1d_film_without_scale_only_shifts() -> None:
    net = small(cond_predict_scale=False)
    block = net.down_modules[0][0]
    assert block.cond_encoder[1].out_features == 16
    assert net(torch.randn(1, 8, 2), torch.tensor([3]), torch.randn(1, 6)).shape == (1, 8, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"down_dims": (10, 32)}, "multiples of n_groups 4"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"embed_dim": 5}, "embed_dim must be even"),
        ({"down_dims": (16, 32, 64, 128, 256)}, "use 16 or fewer down_dims"),
    ],
)
def test_unet1d_refuses_sizes_that_do_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**changes)


def test_make_denoiser_lists_known_backbones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'unet2d', known: .*unet1d"):
        make_denoiser({"name": "unet2d"}, action_dim=2, cond_dim=6, pred_horizon=8)
    with pytest.raises(ConfigError, match="down_dim"):
        make_denoiser({"name": "unet1d", "down_dim": (16,)}, action_dim=2, cond_dim=6, pred_horizon=8)


def test_unet_refuses_last_groups_that_do_not_share_its_channels() -> None:
    sizes = {"action_dim": 2, "cond_dim": 3, "pred_horizon": 4, "down_dims": (12,), "n_groups": 4, "embed_dim": 8}
    assert ConditionalUnet1D(**sizes, final_n_groups=6).final_conv[0].block[1].num_groups == 6
    with pytest.raises(ConfigError, match=r"final_n_groups must divide down_dims\[0\] 12, but got 8"):
        ConditionalUnet1D(**sizes, final_n_groups=8)
