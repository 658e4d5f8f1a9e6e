"""What a policy's observations were in training, as far as its file knows: the ranges that its normalisers kept."""

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.normalizer import LinearNormalizer
from diffusion_policy.policies.conditioned import ConditionedModule

Range = tuple[NDArray[np.float64], NDArray[np.float64]]


def trained_ranges(policy: object) -> dict[str, Range]:
    """Returns {key: (least, greatest)}, (*shape) each, of the observations that have a normaliser: not of pictures.

    A number that never changed in training is given a range of 1 to each side of it: it was moved, not scaled, and its
    normaliser looks like that of one with just this range. For `SafetyConfig(observed=...)`.

    Args:
        policy: of policy.pt; its observations must have been normalised by their limits (`normalization.obs=limits`).

    Raises:
        ConfigError: the policy does not know the ranges.
    """
    if not isinstance(policy, ConditionedModule):
        raise ConfigError(
            f"ranges of training are kept in policy.pt, but got {type(policy).__name__}, which has none; load "
            f"policy.pt, or give the ranges by hand: observed={{key: [low, high]}}"
        )
    mode = policy.config.normalization.obs
    if mode != "limits":
        raise ConfigError(
            f"ranges of training are known of policies with normalization.obs=limits, but this one has {mode}; give "
            f"them by hand: observed={{key: [low, high]}}"
        )
    found: dict[str, Range] = {}
    for key, normalizer in zip(policy.obs_spec, policy.obs_normalizers, strict=True):
        if isinstance(normalizer, LinearNormalizer):
            scale, offset = (each.cpu().double().numpy() for each in (normalizer.scale, normalizer.offset))
            found[key] = ((-1 - offset) / scale, (1 - offset) / scale)
    if not found:
        raise ConfigError("no observation of this policy has a range of training: it reads pictures only")
    return found
