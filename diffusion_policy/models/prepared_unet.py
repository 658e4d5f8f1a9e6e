"""The temporal U-Net for inference under a sampler that is known: all that does not depend on x is computed once.

What FiLM adds and scales by is linear in mish(time) and mish(condition), each for itself. The part of the time is a
constant of every denoising step, the part of the condition one product for all blocks: none is left in the loop.

Letters: B batch, T steps (Tp at the input), C channels, Da action size, Dc condition size, S denoising steps,
F numbers of FiLM of all blocks together.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from diffusion_policy.models.conv import Downsample, TemporalConv, TemporalGroupNorm, Upsample
from diffusion_policy.models.denoiser import Prepared
from diffusion_policy.models.products import ConvProduct, PlainProduct, Product, UpsampleProduct
from diffusion_policy.models.unet1d import ConditionalUnet1D, ConvBlock, FiLMResidualBlock


class PreparedUnet(Prepared):
    """Computes what a trained `ConditionalUnet1D` computes at given timesteps.

    Args:
        unet: the network; it is not changed, and not referred to.
        timesteps: of the denoising steps, in their order.
        product: how the products are computed.
    """

    of_time: Tensor

    def __init__(self, unet: ConditionalUnet1D, timesteps: Sequence[int], product: Product = PlainProduct) -> None:
        super().__init__()
        blocks = [block for block in unet.modules() if isinstance(block, FiLMResidualBlock)]
        linears = [cast("nn.Linear", block.cond_encoder[1]) for block in blocks]
        self.sizes = [linear.out_features for linear in linears]
        with torch.no_grad():
            device = linears[0].weight.device
            time = unet.diffusion_step_encoder(torch.tensor(list(timesteps), device=device))  # (S, E)
            weight = cat([linear.weight for linear in linears])  # (F, E + Dc)
            bias = cat([linear.bias for linear in linears])
            width = time.shape[1]
            self.register_buffer("of_time", F.linear(F.mish(time), weight[:, :width], bias))  # (S, F)
            self.of_cond = product(weight[:, width:], torch.zeros_like(bias))
        places = {block: place for place, block in enumerate(blocks)}

        def prepared(block: nn.Module) -> "_Block":
            assert isinstance(block, FiLMResidualBlock)
            return _Block(block, places[block], product)

        def level(parts: Sequence[nn.Module]) -> "_Level":
            return _Level(prepared(parts[0]), prepared(parts[1]), _resample(parts[2], product))

        self.down = nn.ModuleList(level(list(parts)) for parts in unet.down_modules)
        self.mid = nn.ModuleList(map(prepared, unet.mid_modules))
        self.up = nn.ModuleList(level(list(parts)) for parts in unet.up_modules)
        block, last = unet.final_conv
        assert isinstance(block, ConvBlock)
        assert isinstance(last, TemporalConv)
        self.final = nn.Sequential(_Conv(block, product), ConvProduct(last, product))

    def contexts(self, cond: Tensor) -> Tensor:
        """Returns what FiLM needs at each denoising step, (S, B, F), under cond (B, Dc)."""
        return self.of_time[:, None] + self.of_cond(F.mish(cond))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Returns (B, Tp, Da) of the noisy chunk x (B, Tp, Da) at the denoising step of context (B, F)."""
        films = torch.split(context[:, None], self.sizes, dim=-1)  # each (B, 1, C or 2 C)
        skips = []
        for level in cast("Iterable[_Level]", self.down):
            x = level.blocks(x, films)
            skips.append(x)
            x = level.resample(x)
        for block in self.mid:
            x = block(x, films)
        for level in cast("Iterable[_Level]", self.up):
            x = level.resample(level.blocks(cat((x, skips.pop()), dim=-1), films))
        return self.final(x)  # type: ignore[no-any-return]


class _Conv(nn.Module):
    """Convolution, GroupNorm, activation."""

    def __init__(self, block: ConvBlock, product: Product) -> None:
        super().__init__()
        conv, norm, self.activation = block.block
        assert isinstance(conv, TemporalConv)
        assert isinstance(norm, TemporalGroupNorm)
        self.conv, self.norm = ConvProduct(conv, product), deepcopy(norm).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, T, C_out)."""
        return self.activation(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """A residual block whose FiLM numbers come from outside."""

    def __init__(self, block: FiLMResidualBlock, place: int, product: Product) -> None:
        super().__init__()
        self.first, self.second = (_Conv(cast("ConvBlock", each), product) for each in block.blocks)
        self.place, self.scales = place, block.cond_predict_scale
        residual = block.residual_conv
        self.residual = ConvProduct(residual, product) if isinstance(residual, TemporalConv) else nn.Identity()

    def forward(self, x: Tensor, films: Sequence[Tensor]) -> Tensor:
        """Returns (B, T, C_out)."""
        h = self.first(x)
        film = films[self.place]
        if self.scales:
            scale, bias = film.chunk(2, dim=-1)
            h = torch.addcmul(bias, scale, h)
        else:
            h = h + film
        return self.second(h) + self.residual(x)  # type: ignore[no-any-return]


class _Level(nn.Module):
    """Two residual blocks and a change of T."""

    def __init__(self, first: _Block, second: _Block, resample: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.resample = first, second, resample

    def blocks(self, x: Tensor, films: Sequence[Tensor]) -> Tensor:
        """Returns (B, T, C_out)."""
        return self.second(self.first(x, films), films)  # type: ignore[no-any-return]


def _resample(module: nn.Module, product: Product) -> nn.Module:
    if isinstance(module, Downsample):
        return ConvProduct(module.conv, product)
    if isinstance(module, Upsample):
        return UpsampleProduct(module.conv, product)
    return nn.Identity()
