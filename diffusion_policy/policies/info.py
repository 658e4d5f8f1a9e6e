"""Where a policy comes from, whatever file it is in. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a policy comes from: everything in its file that does not change what it computes.

    Args:
        env: {id, kwargs, renderer}.
        dataset: {digest, provenance}.
        training: {grad_steps, seeds}.
        versions: {package: version}.
        eval: figures of an evaluation, or empty.
    """

    env: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    eval: Mapping[str, Any] = field(default_factory=dict)
