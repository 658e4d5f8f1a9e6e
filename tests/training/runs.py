"""What two runs left behind, compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.training.metrics import read_metrics

Make = Callable[..., dict[str, Any]]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return DiffusionPolicy.load(path / "policy.pt").state_dict()


def assert_same_run(a: Path, b: Path) -> None:
    """Weights bit for bit, and the same measurements (but for speed and times) at the same steps."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)

    def measured(path: Path) -> list[dict[str, Any]]:
        return [
            {k: v for k, v in r.items() if k not in ("samples_per_s", "seconds")}
            for r in read_metrics(path / "metrics.jsonl")
        ]

    assert measured(a) == measured(b)
