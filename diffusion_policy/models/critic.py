"""Networks that value observations and actions: several at once, in one product a layer.

Letters: B batch, K networks, To obs_horizon, A numbers in the executed actions, F features, H width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsSpec
from diffusion_policy.models.activations import ACTIVATIONS, Activation
from diffusion_policy.models.mlp import check_sizes
from diffusion_policy.models.observation import EncoderConfig, ObservationEncoder
from diffusion_policy.settings import build, section


@dataclass(frozen=True)
class CriticConfig:
    """The networks that value.

    Args:
        hidden_dims: sizes of their layers.
        activation: mish or relu, between the layers.
        layer_norm: normalise each layer before its activation.
        encoder: of the observations; it shares nothing with the policy's.
    """

    hidden_dims: tuple[int, ...] = (256, 256, 256)
    activation: Activation = "mish"
    layer_norm: bool = False
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        check_sizes("critic.hidden_dims", self.hidden_dims)

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the configuration written as nested plain values.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        encoder = build(EncoderConfig, section(settings, "encoder"), "critic.encoder")
        return build(cls, {**settings, "encoder": encoder}, "critic")


class ParallelLinear(nn.Module):
    """K linear layers side by side, each drawn as `nn.Linear` draws its weights.

    Args:
        count: K.
        inputs: F of the input.
        outputs: F of the output.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (K, B, outputs) for x (K, B, inputs)."""
        return torch.baddbmm(self.bias, x, self.weight)

    def single(self, x: Tensor, which: int) -> Tensor:
        """Returns (B, outputs) of one of the layers for x (B, inputs)."""
        return torch.addmm(self.bias[which], x, self.weight[which])


class Critic(nn.Module):
    """K values of observations and, where it takes some, actions; nothing is shared but the observation's encoder.

    Args:
        obs_spec: the observation schema.
        obs_horizon: To.
        action_size: A; 0 for values of observations alone.
        count: K.
        config: the networks.
    """

    def __init__(
        self, obs_spec: ObsSpec, obs_horizon: int, action_size: int, count: int = 2, config: CriticConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or CriticConfig()
        self.count = count
        self.encoder = ObservationEncoder(obs_spec, obs_horizon, config.encoder)
        sizes: Sequence[int] = (self.encoder.cond_dim + action_size, *config.hidden_dims, 1)
        layers: list[nn.Module] = []
        for size, next_size in pairwise(sizes):
            layers.append(ParallelLinear(count, size, next_size))
            if config.layer_norm:
                layers.append(nn.LayerNorm(next_size))
            layers.append(ACTIVATIONS[config.activation]())
        self.layers = nn.Sequential(*layers[: -2 if config.layer_norm else -1])

    def forward(self, obs: dict[str, Tensor], action: Tensor | None = None) -> Tensor:
        """Returns the values (K, B).

        Args:
            obs: {key: (B, To, *shape)}, normalised.
            action: (B, A), normalised; None where A is 0.
        """
        return self.value(self.encoder(obs), action)

    def value(self, features: Tensor, action: Tensor | None = None) -> Tensor:
        """Returns the values (K, B) of encoded observations (B, F), so that one encoding serves many actions."""
        x = features if action is None else torch.cat((features, action), dim=1)
        with _full_precision(x):
            out: Tensor = self.layers(x.float().expand(self.count, *x.shape))
        return out.squeeze(-1)

    def single_value(self, which: int, features: Tensor, action: Tensor) -> Tensor:
        """Returns one network's values (B,): the gradient through one costs half of that through both."""
        x = torch.cat((features, action), dim=1)
        with _full_precision(x):
            x = x.float()
            for layer in self.layers:
                x = layer.single(x, which) if isinstance(layer, ParallelLinear) else layer(x)
        return x.squeeze(-1)


def _full_precision(x: Tensor) -> torch.autocast:
    """Switches autocast off: the eight bits of a bfloat16 cannot tell the values of neighbouring actions apart."""
    return torch.autocast(x.device.type, enabled=False)
