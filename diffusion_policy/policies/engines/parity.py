"""Does an engine compute what the policy computes? The same observations and the same noise, in both.

Letters: B batch, To obs_horizon.
"""

import numpy as np
import torch

from diffusion_policy.models.normalizer import LinearNormalizer
from diffusion_policy.policies.chunk import Array, ChunkPolicy
from diffusion_policy.policies.policy import Policy


def random_windows(policy: Policy, rows: int, rng: np.random.Generator) -> dict[str, Array]:
    """Returns observations {key: (B, To, *shape)} in env units, spread over what the normalisers have seen."""
    windows = {}
    for (key, field), normalizer in zip(policy.obs_spec.items(), policy.obs_normalizers, strict=True):
        shape = (rows, policy.horizons.obs_horizon, *field.shape)
        if isinstance(normalizer, LinearNormalizer):
            inside = torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32)).to(policy.device)
            windows[key] = normalizer.unnormalize(inside).cpu().numpy()
        elif field.is_picture:
            windows[key] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            windows[key] = rng.uniform(0, 1, shape).astype(np.float32)
    return windows


def largest_difference(policy: Policy, engine: ChunkPolicy, *, rows: int = 4, seed: int = 0) -> float:
    """Returns by how much predictions differ at most, in normalised actions: their range is 2.

    Args:
        policy: what is right.
        engine: what is judged.
        rows: predictions that are compared, all in one call.
        seed: of observations and noise.
    """
    rng = np.random.default_rng(seed)
    obs = random_windows(policy, rows, rng)
    noise = rng.standard_normal((rows, *policy.noise_shape), np.float32)
    both = [each.predict(obs, noise).prediction for each in (policy, engine)]
    flat = (torch.from_numpy(each.reshape(rows, -1, policy.action_spec.size)).to(policy.device) for each in both)
    right, judged = (policy.action_normalizer.normalize(each) for each in flat)
    return float((judged - right).abs().max())
