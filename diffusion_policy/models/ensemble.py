"""Several denoisers that learn from the same data and act as one (Lakshminarayanan et al. 2017, deep ensembles).

A denoiser that has learned a few hundred demonstrations by heart errs elsewhere than its twin from another start; the
mean of their predictions errs less, at every denoising step, and keeps the modes, since all see the same noisy chunk.

Letters: B batch, K members, Tp pred_horizon, Da action size, Dc condition size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.denoiser import make_denoiser, register_backbone
from diffusion_policy.models.mlp import mlp


@register_backbone("ensemble")
class Ensemble(nn.Module):
    """K denoisers of one kind; in training each learns from every K-th window of the batch, in evaluation they agree.

    A step so costs what a single member would cost on the whole batch, and a prediction K times a member's.

    Args:
        action_dim: Da.
        cond_dim: Dc.
        pred_horizon: Tp.
        member: settings of one: its backbone's name and the rest.
        members: K.
        hidden_dims: layers of an MLP of each member's own between the condition and its denoiser; none for none.

    Raises:
        ConfigError: fewer than two members, or the backbone refuses a setting.
    """

    def __init__(
        self,
        *,
        action_dim: int,
        cond_dim: int,
        pred_horizon: int,
        member: Mapping[str, Any],
        members: int = 4,
        hidden_dims: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        if not isinstance(member, Mapping):
            raise ConfigError(f"denoiser.member must be the settings of one, {{name: ..., ...}}, but got {member!r}")
        if any(size < 1 for size in hidden_dims):
            raise ConfigError(f"denoiser.hidden_dims must be positive, but got {list(hidden_dims)}")
        if members < 2:
            raise ConfigError(f"denoiser.members must be at least 2, but got {members}; denoiser.member alone is one")
        self.row_group = members  # see `Denoiser.row_group`
        sizes = (cond_dim, *hidden_dims)
        self.mlps = nn.ModuleList(mlp(sizes) for _ in range(members))
        self.members = nn.ModuleList(
            make_denoiser(member, action_dim=action_dim, cond_dim=sizes[-1], pred_horizon=pred_horizon)
            for _ in range(members)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, Tp, Da): of each window one member's prediction in training, the mean of all in evaluation."""
        count = len(self.members)
        rows = [slice(k, None, count) if self.training else slice(None) for k in range(count)]
        outs = [
            member(x[part], t[part], own(cond[part]))
            for member, own, part in zip(self.members, self.mlps, rows, strict=True)
        ]
        if not self.training:
            return torch.stack(outs).mean(0)
        whole = torch.empty(x.shape, dtype=outs[0].dtype, device=x.device)
        for part, out in zip(rows, outs, strict=True):
            whole[part] = out
        return whole
