"""The real transitions of a run of dp-augment: which ones, and where they come from."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.augment.reading import read_known
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.data.dataset import split_episodes
from diffusion_policy.data.origin import Origin
from diffusion_policy.data.outcomes import Ends
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.rollout.recorded_env import recorded_bounds
from diffusion_policy.settings import build, plain, section

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AugmentData:
    """Which transitions a model learns from.

    Args:
        episodes: at most so many, drawn by the seed, the same that dp-train draws with data.val_ratio=0; None for all.
        transitions: at most so many of theirs, drawn by the seed; None for all.
        fields: keys of the observation; None for all.
        rounded: columns of whole numbers; see `augment.reading`.
        one_hot: columns of which one is 1.
        ends: see `data.outcomes.Ends`.
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
        bounds: that sampled actions are clipped to: the environment's, or else the smallest and largest of the data.
        of_env: whether they are the environment's.
        digest: of the rows and their columns.
        origin: of which episodes they are.
        left_out: steps whose outcome nobody saw.
        terminals_left_out: those of them that are terminal.
        provenance: of the data set.
    """

    table: Transitions
    bounds: Bounds
    of_env: bool
    digest: str
    origin: Origin
    left_out: int
    terminals_left_out: int
    provenance: Mapping[str, Any]

    def told(self) -> dict[str, Any]:
        """Returns what is kept with a model, and with its samples."""
        return {
            "digest": self.digest,
            "transitions": len(self.table),
            "terminals": int(self.table.terminated.sum()),
            "left_out": self.left_out,
            "terminals_left_out": self.terminals_left_out,
            "origin": plain(self.origin),
        }

    @property
    def warning(self) -> str:
        """What a person must know before trusting a model of these; empty where there is nothing."""
        if not self.terminals_left_out:
            return ""
        return (
            f"{self.terminals_left_out} terminal steps are left out, for what followed them is not stored, and so the "
            f"model will draw no terminals; collect again with dp-collect next_obs=true, or convert a data set that "
            f"has next observations"
        )


def read_real(settings: Mapping[str, Any]) -> RealData:
    """Returns the transitions that the sections of a configuration choose."""
    data = build(AugmentData, section(settings, "data"), "data")
    seed = int(settings.get("seed", 0))
    if not settings.get("dataset"):
        raise ConfigError("dataset: expected a zarr folder or .zip, got nothing; give dataset=PATH")
    with ReplayBuffer.open(resolve_dataset(str(settings["dataset"]))) as buffer:
        episodes, _ = split_episodes(buffer.num_episodes, val_ratio=0.0, seed=seed, max_episodes=data.episodes)
        chosen: dict[str, Any] = {"ends": data.ends, "rounded": data.rounded, "one_hot": data.one_hot}
        known = read_known(buffer, fields=data.fields, episodes=episodes, **chosen)
        table = known.table
        if data.transitions is not None and data.transitions < len(table):
            rows = np.random.default_rng(seed).choice(len(table), data.transitions, replace=False)
            table = table.subset(np.sort(rows))
        limits = recorded_bounds(buffer)
        if limits is not None and len(limits[0]) != table.columns.action_size:
            raise DataError(f"{buffer.location}: the environment's bounds are of another action: {limits}")
        origin = Origin.read(buffer, _keys(buffer, table), episodes, known.terminated)
        provenance = plain(buffer.attrs.get("provenance") or {})
    of_rows = hashlib.sha256(json.dumps(plain(table.columns)).encode())
    of_rows.update(np.ascontiguousarray(table.rows).data)
    real = RealData(
        table, _bounds(limits, table), limits is not None, of_rows.hexdigest(), origin, known.left_out,
        known.terminals_left_out, provenance,
    )  # fmt: skip
    if real.warning:
        logger.warning("%s: %s", settings["dataset"], real.warning)
    return real


def _keys(buffer: ReplayBuffer, table: Transitions) -> list[str]:
    following = [NEXT + key for key in table.columns.obs]
    return ["action", "reward", "terminated", *table.columns.obs, *(key for key in following if key in buffer)]


def _bounds(limits: list[list[float]] | None, table: Transitions) -> Bounds:
    """Returns the bounds (low, high) of the action; of the data where nobody knows the environment's."""
    low, high = limits or (table.action.min(axis=0), table.action.max(axis=0))
    return tuple(map(float, low)), tuple(map(float, high))
