"""The real transitions of a run of dp-augment: which ones, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.augment.reading import read_transitions
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.data.dataset import split_episodes
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions import Ends
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.rollout.recorded_env import recorded_bounds
from diffusion_policy.settings import build, plain, section


@dataclass(frozen=True)
class AugmentData:
    """Which transitions a model learns from.

    Args:
        episodes: at most so many, drawn by the seed, the same that dp-train draws with data.val_ratio=0; None for all.
        transitions: at most so many of theirs, drawn by the seed; None for all.
        fields: keys of the observation; None for all.
        rounded: columns of whole numbers; see `augment.reading`.
        one_hot: columns of which one is 1.
        ends: see `data.transitions.Ends`.
    """

    episodes: int | None = None
    transitions: int | None = None
    fields: tuple[str, ...] | None = None
    rounded: tuple[str, ...] = ()
    one_hot: tuple[str, ...] = ()
    ends: Ends = "refuse"

    def __post_init__(self) -> None:
        if self.transitions is not None and self.transitions < 2:
            raise ConfigError(f"data.transitions must be at least 2, or null for all, but got {self.transitions}")


@dataclass(frozen=True)
class RealData:
    """Real transitions and where they come from.

    Args:
        table: the rows.
        bounds: of the action; None where nobody knows them.
        digest: of the keys that were read, and of the choice among the rows.
        provenance: of the data set.
    """

    table: Transitions
    bounds: Bounds | None
    digest: str
    provenance: Mapping[str, Any]


def read_real(settings: Mapping[str, Any]) -> RealData:
    """Returns the transitions that the sections of a configuration choose."""
    data = build(AugmentData, section(settings, "data"), "data")
    seed = int(settings.get("seed", 0))
    if not settings.get("dataset"):
        raise ConfigError("dataset: expected a zarr folder or .zip, got nothing; give dataset=PATH")
    with ReplayBuffer.open(resolve_dataset(str(settings["dataset"]))) as buffer:
        episodes, _ = split_episodes(buffer.num_episodes, val_ratio=0.0, seed=seed, max_episodes=data.episodes)
        chosen: dict[str, Any] = {"ends": data.ends, "rounded": data.rounded, "one_hot": data.one_hot}
        table = read_transitions(buffer, fields=data.fields, episodes=episodes, **chosen)
        if data.transitions is not None and data.transitions < len(table):
            rows = np.random.default_rng(seed).choice(len(table), data.transitions, replace=False)
            table = table.subset(np.sort(rows))
        read = [key for name in table.columns.obs for key in (name, f"next_{name}") if key in buffer]
        digest = buffer.digest(["action", "reward", "terminated", *read])
        limits = recorded_bounds(buffer)
        bounds = None if limits is None else (tuple(map(float, limits[0])), tuple(map(float, limits[1])))
        if bounds is not None and len(bounds[0]) != table.columns.action_size:
            raise DataError(f"{buffer.location}: the environment's bounds are of another action: {bounds}")
        provenance = plain(buffer.attrs.get("provenance") or {})
    some = "" if len(episodes) == buffer.num_episodes and data.transitions is None else f" {len(table)} rows {seed}"
    return RealData(table, bounds, digest + some, provenance)
