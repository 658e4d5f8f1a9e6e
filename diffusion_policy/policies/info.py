"""Where a policy comes from, whatever file it is in. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusion_policy.rates import told_rate


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

    @property
    def control_hz(self) -> float | None:
        """Actions a second of the demonstrations, or of the environment; None where the file tells neither."""
        sets = (self.dataset.get("sets") or {}).values()  # of one rate: training refuses others
        records = [self.dataset.get("provenance"), *(each.get("provenance") for each in sets), self.env]
        return next(filter(None, map(told_rate, records)), None)


def rate_of(policy: object) -> float | None:
    """Returns `CheckpointInfo.control_hz` of a policy that has an info; None of any other."""
    info = getattr(policy, "info", None)
    return info.control_hz if isinstance(info, CheckpointInfo) else None
