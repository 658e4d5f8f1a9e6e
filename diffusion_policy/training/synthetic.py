"""Synthetic transitions for an agent's batches: a data set that dp-augment made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from diffusion_policy.config import ActionSpec, Horizons, ObsSpec
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.origin import Origin
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions import TransitionDataset
from diffusion_policy.errors import ConfigError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.settings import plain


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
    trained_on: Callable[[Sequence[str]], Origin],
    of_any: bool = False,
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
        trained_on: the origin of the real transitions beside these, by the keys that count.
        of_any: take transitions that were made of other ones, too.

    Raises:
        ConfigError: the horizons are longer, or the model learned from other transitions than the agent.
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
    if not of_any:
        _check_origin(path, provenance, trained_on)
    outcomes = replace(outcomes, reward=scaled(outcomes.reward))
    return Synthetic(TransitionDataset(windows, outcomes, discount=discount), digest, provenance)


def _check_origin(path: str, provenance: Mapping[str, Any], trained_on: Callable[[Sequence[str]], Origin]) -> None:
    """Raises ConfigError where a model learned from other transitions: what it knows, the agent is not meant to."""
    otherwise = "or say data.synthetic_from=any if that is meant"
    told = (provenance.get("real") or {}).get("origin")
    if not told:
        raise ConfigError(
            f"data.synthetic={path} does not tell which transitions it was made of; make it with dp-augment, "
            f"{otherwise}"
        )
    theirs = Origin.from_plain(told)
    ours = trained_on(theirs.keys)
    if theirs != ours:
        raise ConfigError(
            f"data.synthetic={path} was made of {theirs}, but the agent trains on {ours}; fit the model with the same "
            f"dataset, data.episodes, data.ends and seed (and data.val_ratio=0 here), {otherwise}"
        )
