"""Synthetic transitions for an agent's batches: a data set that dp-augment made."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from diffusion_policy.config import ActionSpec, Horizons, ObsSpec
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions import Outcomes, TransitionDataset
from diffusion_policy.errors import ConfigError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.settings import plain

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synthetic:
    """Synthetic transitions and where they come from.

    Args:
        transitions: all of them.
        digest: of the data set.
        provenance: what it says of itself.
    """

    transitions: TransitionDataset
    digest: str
    provenance: Mapping[str, Any]


def read_synthetic(
    path: str,
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    horizons: Horizons,
    *,
    discount: float,
    device: torch.device,
    scaled: Callable[[np.ndarray], np.ndarray],
    real_digest: str,
) -> Synthetic:
    """Returns the transitions of a data set of dp-augment.

    Args:
        path: of the zarr.
        obs_spec: the policy's fields.
        action_spec: its actions.
        horizons: its horizons, of one step each: a synthetic transition has no neighbours.
        discount: of a step.
        device: where they are kept.
        scaled: rewards (N,) as the agent sees them.
        real_digest: of the real data; other ones that the model learned from are worth a warning.

    Raises:
        ConfigError: the horizons are longer.
        DataError: it lacks a field.
    """
    if (horizons.obs_horizon, horizons.action_horizon, horizons.pred_horizon) != (1, 1, 1):
        raise ConfigError(
            f"data.synthetic holds single transitions, but horizons are {horizons.obs_horizon}, "
            f"{horizons.action_horizon}, {horizons.pred_horizon}; use preset=offline, or set all three to 1"
        )
    with ReplayBuffer.open(resolve_dataset(path)) as buffer:
        windows = WindowDataset.from_buffer(buffer, obs_spec, action_spec, horizons, device=device)
        outcomes = Outcomes.read(buffer, windows.index.episode_ids, obs_spec, "terminated")
        provenance = plain(buffer.attrs.get("provenance") or {})
        digest = buffer.digest()
    learned = str((provenance.get("real") or {}).get("digest", "")).split(" ")[0]
    if learned != real_digest:
        logger.warning(
            "data.synthetic=%s was made of other data than dataset= (digest %s, here %s); nothing is wrong with that "
            "if it is meant",
            path,
            learned[:12] or "not told",
            real_digest[:12],
        )
    outcomes = replace(outcomes, reward=scaled(outcomes.reward))
    return Synthetic(TransitionDataset(windows, outcomes, discount=discount), digest, provenance)
