"""Linear normalisation of one field, kept inside the policy so that it can never be lost or doubled.

Letters: D numbers in one step of the field.
"""

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError

NormalizerMode = Literal["limits", "gaussian", "quantile", "identity"]
QUANTILES = (0.01, 0.99)
CONSTANT_RANGE = 1e-4  # in units of the data: a dimension that varies less is shifted, never divided


def check_mode(mode: str, where: str) -> NormalizerMode:
    """Returns `mode`, or raises ConfigError that lists the known ones."""
    if mode not in get_args(NormalizerMode):
        raise ConfigError(f"{where}: expected one of {', '.join(get_args(NormalizerMode))}, but got '{mode}'")
    return cast("NormalizerMode", mode)


class LinearNormalizer(nn.Module):
    """y = scale * x + offset, per number of a field; buffers, saved with the policy.

    Args:
        shape: shape of one step of the field.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("offset", torch.zeros(shape))

    @torch.no_grad()
    def fit(self, data: Tensor, mode: NormalizerMode, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        """Sets scale and offset from data.

        limits: minimum and maximum become -1 and 1. gaussian: mean 0, standard deviation 1. quantile: the 1 % and
        99 % quantiles become -1 and 1 (outliers lie outside). identity: the bounds, where given, become -1 and 1;
        else nothing changes. A dimension that is constant in the data is moved to 0 and not scaled.

        Args:
            data: (N, *shape).
            mode: see above.
            bounds: (low, high), each *shape, for identity.
        """
        rows = data.reshape(len(data), -1).cpu().double()  # (N, D); some devices have no float64
        if mode == "identity":
            if bounds is None:
                self._set(torch.ones(rows.shape[1]), torch.zeros(rows.shape[1]))
                return
            low, high = (b.reshape(-1).cpu().double() for b in bounds)
        elif mode == "limits":
            low, high = rows.amin(0), rows.amax(0)
        elif mode == "quantile":
            # kthvalue rather than torch.quantile, which refuses more than 16 M numbers
            low, high = (rows.kthvalue(1 + round(q * (len(rows) - 1)), dim=0).values for q in QUANTILES)
        else:
            mean, std = rows.mean(0), rows.std(0, correction=0)
            low, high = mean - std, mean + std
        half_range, middle = (high - low) / 2, (high + low) / 2
        # quantile looks at the range between its quantiles: all that is left of a constant with a few outliers
        spread = high - low if mode in ("quantile", "identity") else rows.amax(0) - rows.amin(0)
        scale = torch.where(spread < CONSTANT_RANGE, 1.0, 1.0 / half_range)
        self._set(scale, -middle * scale)

    def _set(self, scale: Tensor, offset: Tensor) -> None:
        self.scale.copy_(scale.reshape(self.scale.shape))
        self.offset.copy_(offset.reshape(self.offset.shape))

    def normalize(self, x: Tensor) -> Tensor:
        """Returns scale * x + offset for x (..., *shape)."""
        return x * self.scale + self.offset

    def unnormalize(self, y: Tensor) -> Tensor:
        """Returns x with normalize(x) = y."""
        return (y - self.offset) / self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Same as `normalize`."""
        return self.normalize(x)
