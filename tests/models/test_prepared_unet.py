"""The U-Net prepared for inference computes what the trained one computes."""

from functools import partial

import pytest
import torch
from torch import nn

from diffusion_policy.models.conv import TemporalConv
from diffusion_policy.models.prepared_unet import PreparedUnet
from diffusion_policy.models.products import ConvProduct, PlainProduct, UpsampleProduct
from diffusion_policy.models.unet1d import ConditionalUnet1D

STEPS = (99, 60, 1)
DOUBLE = partial(PlainProduct, dtype=torch.float64)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2)])
def test_convolution_is_a_product_over_windows(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv, x = TemporalConv(6, 10, kernel, stride).double(), torch.randn(3, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(ConvProduct(conv, DOUBLE)(x), conv(x))


def test_transposed_convolution_is_a_product_over_windows() -> None:
    torch.manual_seed(0)
    conv, x = nn.ConvTranspose1d(6, 10, 4, stride=2, padding=1).double(), torch.randn(3, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(UpsampleProduct(conv, DOUBLE)(x), conv(x.mT).mT)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cond_predict_scale": False},
        {"activation": "silu", "kernel_size": 3},
        {"down_dims": (16, 32)},
    ],
    ids=str,
)
def test_prepared_network_equals_the_trained_one_at_every_step(settings) -> None:
    torch.manual_seed(0)
    options = {"down_dims": (16, 32, 64), "embed_dim": 16, **settings}
    unet = ConditionalUnet1D(2, 7, 16, **options).eval()
    prepared = PreparedUnet(unet, STEPS)
    x, cond = torch.randn(3, 16, 2), torch.randn(3, 7)
    with torch.no_grad():
        contexts = prepared.contexts(cond)
        for context, t in zip(contexts, STEPS, strict=True):
            torch.testing.assert_close(prepared(x, context), unet(x, torch.full((3,), t), cond), rtol=1e-5, atol=1e-5)


def test_prepared_network_holds_no_weight_of_the_trained_one() -> None:
    unet = ConditionalUnet1D(2, 7, 16, down_dims=(16, 32), embed_dim=16).eval()
    prepared, x, cond = PreparedUnet(unet, STEPS), torch.randn(1, 16, 2), torch.randn(1, 7)
    with torch.no_grad():
        before = prepared(x, prepared.contexts(cond)[0])
        for parameter in unet.parameters():
            parameter.zero_()
        torch.testing.assert_close(prepared(x, prepared.contexts(cond)[0]), before)
