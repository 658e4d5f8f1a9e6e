"""Mish by one sigmoid is Mish."""

import torch
from torch.nn import functional

from diffusion_policy.models.activations import Mish


def test_mish_and_its_slope_are_those_of_torch() -> None:
    x = torch.linspace(-40, 40, 20_001).requires_grad_()
    ours, theirs = Mish()(x), functional.mish(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=5e-6)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=5e-6)
    with torch.no_grad():
        torch.testing.assert_close(Mish()(x), theirs, rtol=1e-6, atol=5e-6)


def test_mish_slope_is_the_numerical_one() -> None:
    x = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(Mish(), x)
