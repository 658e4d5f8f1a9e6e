"""Turns observations into one condition vector: one sub-encoder per field, chosen by its type, then a common MLP.

Letters: B batch, To obs_horizon, F features of one field at one step, Dc condition size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.registry import Registry

FieldEncoderFactory = Callable[[ObsField], "FieldEncoder"]
FIELD_ENCODERS: Registry[FieldEncoderFactory] = Registry("observation type")
register_field_encoder = FIELD_ENCODERS.register


class FieldEncoder(nn.Module):
    """Encodes one step of one field: (B, *shape) -> (B, F). Subclasses set `feature_dim`."""

    feature_dim: int


@register_field_encoder("low_dim")
class FlattenEncoder(FieldEncoder):
    """A vector, or an array of any shape, as it is, flattened."""

    def __init__(self, field: ObsField) -> None:
        super().__init__()
        self.feature_dim = field.size

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, F) of x (B, *shape)."""
        return x.flatten(1)


@dataclass(frozen=True)
class EncoderConfig:
    """How features become the condition.

    Args:
        hidden_dims: sizes of the layers of an MLP over the features of all fields and steps, with Mish between them;
            the last is Dc. None of them is the published network, in which FiLM reads the features themselves: each
            scale and shift is then all but linear in the observation, and contact is not.
    """

    hidden_dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden_dims):
            raise ConfigError(f"encoder.hidden_dims must be positive, but got {list(self.hidden_dims)}")


class ObservationEncoder(nn.Module):
    """{key: (B, To, *shape)}, normalised -> (B, Dc), Dc = To * sum of F, or the MLP's last size.

    Features of all fields are concatenated per step, in the order of the schema, then steps are concatenated:
    the layout of the published networks.

    Args:
        obs_spec: the schema; its order is the order of the features.
        obs_horizon: To.
        config: the MLP after that.
    """

    def __init__(self, obs_spec: ObsSpec, obs_horizon: int, config: EncoderConfig | None = None) -> None:
        super().__init__()
        encoders = [FIELD_ENCODERS.get(field.type)(field) for field in obs_spec.values()]
        self.keys = list(obs_spec)
        self.encoders = nn.ModuleList(encoders)
        sizes = (
            obs_horizon * sum(encoder.feature_dim for encoder in encoders),
            *(config or EncoderConfig()).hidden_dims,
        )
        layers: list[nn.Module] = []
        for size, next_size in pairwise(sizes):
            layers += [nn.Linear(size, next_size), nn.Mish()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.cond_dim = sizes[-1]

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Returns the condition (B, Dc)."""
        features = []
        for key, encoder in zip(self.keys, self.encoders, strict=True):
            x = obs[key]  # (B, To, *shape)
            features.append(encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2]))  # (B, To, F)
        cond: Tensor = self.mlp(torch.cat(features, dim=-1).flatten(1))
        return cond
