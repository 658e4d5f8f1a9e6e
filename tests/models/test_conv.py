"""Every form of the convolution computes torch's convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion_policy.models.conv import TemporalConv, TemporalGroupNorm, Upsample


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2)])
def test_temporal_conv_equals_conv1d(kernel: int, stride: int) -> None:
    conv, x = TemporalConv(6, 10, kernel, stride), torch.randn(4, 8, 6)
    expected = F.conv1d(x.mT, conv.weight.mT, conv.bias, stride=stride, padding=kernel // 2).mT
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "steps"), [(3, 1, 4), (5, 1, 4), (5, 1, 7), (3, 2, 8), (5, 2, 7)])
def test_temporal_conv_in_bf16_has_the_value_and_gradients_of_conv1d(kernel: int, stride: int, steps: int) -> None:
    torch.manual_seed(0)
    conv, x = TemporalConv(16, 24, kernel, stride), torch.randn(8, steps, 16, requires_grad=True)
    inputs = (x, conv.weight, conv.bias)
    plain = F.conv1d(x.mT, conv.weight.mT, conv.bias, stride=stride, padding=kernel // 2).mT
    weight = torch.randn(plain.shape)
    with torch.autocast("cpu", torch.bfloat16):
        fast = conv(x)
    assert fast.dtype == torch.bfloat16
    pairs = [(fast.float(), plain)]
    pairs += zip(
        torch.autograd.grad((fast * weight).sum(), inputs),
        torch.autograd.grad((plain * weight).sum(), inputs),
        strict=True,
    )
    for got, expected in pairs:
        assert (got - expected).norm() < 0.01 * expected.norm()  # bfloat16 keeps 8 bits


def test_state_dict_is_that_of_torchs_convolution() -> None:
    torch.manual_seed(0)
    conv, plain, x = TemporalConv(6, 10, 5), nn.Conv1d(6, 10, 5, padding=2), torch.randn(2, 8, 6)
    state = plain.state_dict()
    conv.load_state_dict(state)
    torch.testing.assert_close(conv(x), plain(x.mT).mT, rtol=1e-5, atol=1e-6)
    assert {name: each.shape for name, each in conv.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert torch.equal(conv.state_dict()["weight"], state["weight"])
    assert state["weight"].shape == (10, 6, 5), "loading must not change the caller's dict"


def test_trained_weights_and_their_gradients_have_one_layout() -> None:
    """Fused AdamW reads both in the order of memory, whatever their strides say."""
    conv = TemporalConv(16, 24, 5)
    for bf16 in (False, True):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            conv(torch.randn(2, 8, 16)).float().square().sum().backward()
        assert conv.weight.grad is not None
        assert conv.weight.is_contiguous()
        assert conv.weight.grad.is_contiguous()


def test_temporal_group_norm_is_the_same_in_both_memory_layouts() -> None:
    norm = TemporalGroupNorm(4, 16)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 8, 16)
    other_layout = x.mT.contiguous().mT
    expected = F.group_norm(x.mT, 4, norm.weight, norm.bias).mT
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm(other_layout), expected, rtol=1e-5, atol=1e-6)


def test_upsample_doubles_the_steps() -> None:
    assert Upsample(4)(torch.randn(2, 5, 4)).shape == (2, 10, 4)
