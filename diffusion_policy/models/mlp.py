"""Layers between features and a condition."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Returns linear layers from each size to the next, with Mish between them; the identity for a single size."""
    layers: list[nn.Module] = []
    for size, next_size in pairwise(sizes):
        layers += [nn.Linear(size, next_size), nn.Mish()]
    return nn.Sequential(*layers[:-1])
