"""What a policy's observations were in training, as far as its file knows: the ranges that its normalisers kept."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import ConfigError

Range = tuple[NDArray[np.float64], NDArray[np.float64]]


def trained_ranges(policy: Any) -> dict[str, Range]:
    """Returns {key: (least, greatest)}, (*shape) each, of the observations that have a normaliser: not of pictures.

    For `SafetyConfig(observed=...)`; see `ConditionedModule.trained_ranges` for numbers that never changed.

    Args:
        policy: of policy.pt, or exported from one; its observations must have been normalised by their limits
            (`normalization.obs=limits`).

    Raises:
        ConfigError: the policy does not know the ranges.
    """
    found = getattr(policy, "trained_ranges", None)
    if not found:
        raise ConfigError(
            f"this {type(policy).__name__} knows no ranges of training: they are kept with normalization.obs=limits, "
            f"of observations that are no pictures, and were not in files that were exported earlier; give them by "
            f"hand: observed={{key: [low, high]}}"
        )
    return {key: (np.asarray(low), np.asarray(high)) for key, (low, high) in found.items()}
