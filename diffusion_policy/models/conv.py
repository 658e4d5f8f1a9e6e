"""Temporal convolutions over (B, T, C), channels last: the one place every convolution of the U-Net goes through.

Parameters have the names and shapes of `torch.nn.Conv1d`, so published weights load whatever form computes them.
Two forms are here: torch's own convolution, and, under bfloat16 autocast, one matrix product over all (sample,
step) windows, which CPUs with bfloat16 instructions compute 2-3 times faster (T is only 4 to 16).

Letters: B batch, T steps, C channels, K kernel size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TemporalConv(nn.Conv1d):
    """A 1-D convolution over (B, T, C) with "same" zero padding for odd kernels.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: K, odd.
        stride: steps between outputs; 2 halves T.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T / stride, C_out) of x (B, T, C_in)."""
        if self.kernel_size[0] == 1:
            return F.linear(x, self.weight[:, :, 0], self.bias)
        if self.stride[0] == 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return _WindowProduct.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]
        return super().forward(x.mT).mT


class _WindowProduct(torch.autograd.Function):
    """Stride-1 convolution as a bfloat16 matrix product, with a backward pass of two more.

    autograd through `unfold` would scatter-add the gradient window by window; here it is again a product over
    windows, of the output's gradient with the flipped kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        c_out, c_in, kernel = weight.shape
        windows = _windows(x.to(torch.bfloat16), kernel)  # (B T, K C_in)
        matrix = weight.permute(2, 1, 0).reshape(kernel * c_in, c_out).to(torch.bfloat16)
        ctx.save_for_backward(windows, matrix)
        ctx.sizes = (batch, steps, c_in, c_out, kernel)
        return torch.addmm(bias.to(torch.bfloat16), windows, matrix).view(batch, steps, c_out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        windows, matrix = ctx.saved_tensors
        batch, steps, c_in, c_out, kernel = ctx.sizes
        grad = grads[0].to(torch.bfloat16).contiguous()  # (B, T, C_out)
        rows = grad.view(-1, c_out)
        grad_weight = (windows.mT @ rows).float().view(kernel, c_in, c_out).permute(2, 1, 0)
        grad_x = None
        if ctx.needs_input_grad[0]:
            flipped = matrix.view(kernel, c_in, c_out).flip(0).mT.reshape(kernel * c_out, c_in)
            grad_x = (_windows(grad, kernel) @ flipped).view(batch, steps, c_in)
        return grad_x, grad_weight, rows.float().sum(0)


def _windows(x: Tensor, kernel: int) -> Tensor:
    """Returns the zero-padded windows (B T, K C) of x (B, T, C): K C neighbouring numbers each."""
    batch, steps, channels = x.shape
    padded = F.pad(x, (0, 0, kernel // 2, kernel // 2))
    strides = (padded.stride(0), channels, 1)  # windows overlap in memory until `reshape` copies them
    return padded.as_strided((batch, steps, kernel * channels), strides).reshape(batch * steps, kernel * channels)


class Downsample(nn.Module):
    """Halves T: (B, T, C) -> (B, T / 2, C), kernel 3, stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TemporalConv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T / 2, C)."""
        return self.conv(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Doubles T: (B, T, C) -> (B, 2 T, C), transposed convolution, kernel 4, stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, 2 T, C)."""
        return self.conv(x.mT).mT  # type: ignore[no-any-return]


class TemporalGroupNorm(nn.GroupNorm):
    """GroupNorm over (B, T, C); a group's statistics run over its channels and all T steps."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C)."""
        if x.is_contiguous():  # as a picture of one row, for which torch has a channels-last kernel
            return super().forward(x.mT[:, :, None])[:, :, 0].mT
        return super().forward(x.mT).mT
