"""Temporal convolutions as one matrix product each, with weights laid out once: what inference wants on CPUs.

T is 4 to 16 here: a convolution is a product of few rows with a large matrix. torch's own convolution lays its
weights out anew on every call, which costs more than the arithmetic. A layer here is made from a trained one, computes
the same, and is not trained any more.

Letters: B batch, T steps, C channels, K kernel size, N outputs of a product.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.models.conv import TemporalConv

Product = Callable[[Tensor, Tensor], nn.Module]
"""(weight (N, K C), bias (N,)) -> a module that computes rows (..., K C) -> (..., N)."""

_FEW_ROWS = 16  # the layout is chosen for about so many


class PlainProduct(nn.Module):
    """The product as torch computes it, e.g. in a graph for a compiler that lays weights out itself.

    Args:
        weight: (N, K C).
        bias: (N,).
        dtype: of weights and arithmetic; rows come and go as float32.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().to(dtype).clone(memory_format=torch.contiguous_format))
        self.register_buffer("bias", bias.detach().to(dtype).clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Returns (..., N)."""
        return F.linear(rows.to(self.weight.dtype), self.weight, self.bias).to(rows.dtype)


class PackedProduct(nn.Module):
    """The product with weights in the layout of oneDNN's kernels, from the start: for few rows on a CPU.

    Laid out once, weights are read at the speed of memory; `F.linear` lays them out on every call. The laid-out tensor
    is opaque: it is neither saved nor moved to another device.

    Args:
        weight: (N, K C), on the CPU.
        bias: (N,).
        dtype: of weights and arithmetic; rows come and go as float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype).contiguous(), _FEW_ROWS)
        self._bias, self._dtype = bias.detach().to(dtype).clone(), dtype

    def forward(self, rows: Tensor) -> Tensor:
        """Returns (..., N)."""
        flat = rows.reshape(-1, rows.shape[-1]).to(self._dtype)
        out = torch.ops.mkldnn._linear_pointwise(flat, self._packed, self._bias, "none", [], "")
        return out.to(rows.dtype).view(*rows.shape[:-1], -1)  # type: ignore[no-any-return]


def can_pack() -> bool:
    """Whether this build of torch lays weights out for oneDNN; those for Apple's and some ARM processors do not."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


class ConvProduct(nn.Module):
    """A convolution with "same" zero padding as a product over windows: (B, T, C) -> (B, T / stride, C_out)."""

    def __init__(self, conv: TemporalConv, product: Product) -> None:
        super().__init__()
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        assert conv.bias is not None
        self.product = product(conv.weight.flatten(1), conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T / stride, C_out)."""
        return self.product(_windows(x, self.kernel, self.stride))  # type: ignore[no-any-return]


class UpsampleProduct(nn.Module):
    """The transposed convolution of kernel 4 and stride 2 as a product: (B, T, C) -> (B, 2 T, C_out).

    Step 2i of the output is W1 x[i] + W3 x[i-1], step 2i + 1 is W2 x[i] + W0 x[i+1]: two rows of one product over
    windows of three.
    """

    def __init__(self, conv: nn.ConvTranspose1d, product: Product) -> None:
        super().__init__()
        before, here, after = (
            conv.weight.new_zeros(2, *conv.weight.shape[:2]) for _ in range(3)
        )  # (even/odd, C, C_out)
        weight = conv.weight.detach()  # (C, C_out, 4)
        here[0], before[0] = weight[..., 1], weight[..., 3]
        here[1], after[1] = weight[..., 2], weight[..., 0]
        matrix = torch.cat((before, here, after), dim=1)  # (2, 3 C, C_out)
        assert conv.bias is not None
        self.product = product(matrix.permute(0, 2, 1).flatten(0, 1), conv.bias.repeat(2))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, 2 T, C_out)."""
        batch, steps, _ = x.shape
        return self.product(_windows(x, 3, 1)).view(batch, 2 * steps, -1)  # type: ignore[no-any-return]


def _windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Returns the zero-padded windows (B, T / stride, K C) of x (B, T, C)."""
    if kernel == 1 and stride == 1:
        return x
    steps = x.shape[1]
    padded = F.pad(x, (0, 0, kernel // 2, kernel // 2))
    return torch.cat([padded[:, k : k + steps : stride] for k in range(kernel)], dim=-1)
