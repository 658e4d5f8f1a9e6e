"""Denoisers for inference under a sampler that is known: what depends on the condition only is computed once a chunk.

A denoiser in training takes (x, t, cond) at every step. One that is prepared for given timesteps turns the condition
into a context for each of them first; a step then takes (x, context). Its weights are copies, laid out as whoever
computes the products wants them.

Letters: B batch, Tp pred_horizon, Da action size, Dc condition size, S denoising steps, F size of a context.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from diffusion_policy.models.denoiser import Prepared
from diffusion_policy.models.ensemble import Ensemble
from diffusion_policy.models.prepared_unet import PreparedUnet
from diffusion_policy.models.products import PlainProduct, Product
from diffusion_policy.models.unet1d import ConditionalUnet1D


def prepare(denoiser: nn.Module, timesteps: Sequence[int], product: Product = PlainProduct) -> Prepared:
    """Returns what computes the same as a denoiser in evaluation at the given timesteps.

    Args:
        denoiser: any; those of this package are prepared, others are called as they are.
        timesteps: of the denoising steps, in their order; one that is visited twice stands there twice.
        product: how the matrix products of prepared ones are computed.
    """
    if type(denoiser) is ConditionalUnet1D:  # a class derived from it may compute something else
        return PreparedUnet(denoiser, timesteps, product)
    if type(denoiser) is Ensemble:
        return _PreparedEnsemble(denoiser, timesteps, product)
    return _Unprepared(denoiser, timesteps)


def is_prepared(denoiser: nn.Module) -> bool:
    """Whether `prepare` knows the products of a denoiser, so that another precision reaches them."""
    if type(denoiser) is Ensemble:
        return all(is_prepared(member) for member in denoiser.members)
    return type(denoiser) is ConditionalUnet1D


class _PreparedEnsemble(Prepared):
    """Its members, each prepared; contexts lie side by side."""

    def __init__(self, ensemble: Ensemble, timesteps: Sequence[int], product: Product) -> None:
        super().__init__()
        self.mlps = deepcopy(ensemble.mlps)
        self.members = nn.ModuleList(prepare(member, timesteps, product) for member in ensemble.members)

    def contexts(self, cond: Tensor) -> Tensor:
        """Returns (S, B, F), the contexts of all members."""
        each = [
            cast("Prepared", member).contexts(own(cond)) for own, member in zip(self.mlps, self.members, strict=True)
        ]
        return torch.cat(each, dim=-1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Returns (B, Tp, Da), the mean of the members'."""
        parts = context.chunk(len(self.members), dim=-1)
        return torch.stack([member(x, part) for member, part in zip(self.members, parts, strict=True)]).mean(0)


class _Unprepared(Prepared):
    """A denoiser of somebody else's: its context is the timestep and the condition."""

    times: Tensor

    def __init__(self, denoiser: nn.Module, timesteps: Sequence[int]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("times", torch.tensor(list(timesteps), dtype=torch.float32), persistent=False)

    def contexts(self, cond: Tensor) -> Tensor:
        """Returns (S, B, 1 + Dc); timesteps are whole numbers, which float32 holds exactly up to 16 million."""
        steps, batch = len(self.times), len(cond)
        times = self.times.to(cond)[:, None, None].expand(steps, batch, 1)
        return torch.cat((times, cond[None].expand(steps, *cond.shape)), dim=-1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Returns (B, Tp, Da)."""
        return self.denoiser(x, context[:, 0].long(), context[:, 1:])  # type: ignore[no-any-return]
