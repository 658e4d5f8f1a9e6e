"""Temporal convolutions over (B, T, C), channels last: the one place every convolution of the U-Net goes through.

A state dict has the names and shapes of `torch.nn.Conv1d`, so published weights load whatever form computes them. Two
forms are here: torch's own convolution, and, under autocast on CPUs, one matrix product over all (sample, step)
windows, which processors with bfloat16 instructions compute 2-3 times faster (T is only 4 to 16).

Letters: B batch, T steps, C channels, K kernel size, T' = T / stride steps of the output.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class TemporalConv(nn.Conv1d):
    """A 1-D convolution over (B, T, C) with "same" zero padding for odd kernels.

    Its weight is (C_out, K, C), channels last as the data: the matrix of the product is then a view of it, and its
    gradient one of the matrix's (copying between layouts took half of a training step). A state dict holds it as
    `torch.nn.Conv1d` does, (C_out, C, K).

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        kernel_size: K, odd.
        stride: steps between outputs; 2 halves T.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
        self.weight = nn.Parameter(
            self.weight.detach().mT.contiguous()
        )  # not just strided: fused AdamW ignores strides

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T', C_out) of x (B, T, C_in)."""
        if self.kernel_size[0] == 1 and self.stride[0] == 1:
            return F.linear(x, self.weight[:, 0], self.bias)
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            return _WindowProduct.apply(x, self.weight, self.bias, self.stride[0], dtype)  # type: ignore[no-any-return, no-untyped-call]
        # as a picture of one row: the only convolutions that take channels last as they are
        picture, weight = x.mT[:, :, None], self.weight.mT[:, :, None]
        stride, padding = (1, self.stride[0]), (0, self.kernel_size[0] // 2)
        return F.conv2d(picture, weight, self.bias, stride, padding)[:, :, 0].mT

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = destination[f"{prefix}weight"].mT

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}weight" in state_dict:  # nn.Module hands over a dict of its own
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"].mT
        super()._load_from_state_dict(state_dict, prefix, *rest)


class _WindowProduct(torch.autograd.Function):
    """A convolution as a matrix product over windows, with a backward pass of two more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, dtype: torch.dtype) -> Tensor:
        kernel = weight.shape[1]
        windows = _windows(x.to(dtype), kernel, stride)  # (B, T', K C)
        matrix = weight.flatten(1).to(dtype)  # (C_out, K C)
        ctx.save_for_backward(windows, matrix)
        ctx.sizes = (kernel, stride, x.shape[1], x.dtype)
        return F.linear(windows, matrix, bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        windows, matrix = ctx.saved_tensors
        kernel, stride, steps, dtype = ctx.sizes
        grad = grads[0].to(matrix.dtype)  # (B, T', C_out)
        rows = grad.reshape(-1, grad.shape[-1])
        of_matrix = (rows.mT @ windows.flatten(0, 1)).to(torch.promote_types(dtype, torch.float32))  # (C_out, K C)
        of_weight = of_matrix.unflatten(1, (kernel, -1))
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _folded((grad @ matrix).unflatten(-1, (kernel, -1)), stride, steps).to(dtype)
        return of_x, of_weight, rows.to(of_matrix.dtype).sum(0), None, None


def _windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Returns the zero-padded windows (B, T', K C) of x (B, T, C): K C neighbouring numbers each."""
    batch, steps, channels = x.shape
    padded = F.pad(x, (0, 0, kernel // 2, kernel // 2)).contiguous()
    strides = (padded.stride(0), stride * channels, 1)  # windows overlap in memory until `contiguous` copies them
    count = (steps - 1) // stride + 1
    return padded.as_strided((batch, count, kernel * channels), strides).contiguous()


def _folded(windows: Tensor, stride: int, steps: int) -> Tensor:
    """Returns (B, T, C), the sum of windows (B, T', K, C) where each was taken from: the adjoint of `_windows`."""
    batch, count, kernel, channels = windows.shape
    padded = windows.new_zeros(batch, steps + kernel - 1, channels)
    for place in range(kernel):
        padded[:, place : place + stride * (count - 1) + 1 : stride] += windows[:, :, place]
    return padded[:, kernel // 2 : kernel // 2 + steps]


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
