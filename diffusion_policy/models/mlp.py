"""Layers between features and a condition, or an answer."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from diffusion_policy.errors import ConfigError


def mlp(sizes: Sequence[int], *, dropout: float = 0.0, activation: type[nn.Module] = nn.Mish) -> nn.Sequential:
    """Returns linear layers from each size to the next, with activations between them; the identity for a single size.

    Args:
        sizes: of the input, of each layer.
        dropout: share of features dropped in training after each activation.
        activation: a class of modules.
    """
    layers: list[nn.Module] = []
    for size, next_size in pairwise(sizes):
        layers += [nn.Linear(size, next_size), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*(layers[:-2] if dropout and layers else layers[:-1]))


def check_sizes(name: str, sizes: Sequence[int], *, dropout: float = 0.0) -> None:
    """Raises ConfigError where a layer has no features, or dropout would leave none."""
    if any(size < 1 for size in sizes):
        raise ConfigError(f"{name} must be positive, but got {list(sizes)}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be in [0, 1), but got {dropout}")
