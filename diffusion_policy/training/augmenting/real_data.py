"""The real transitions of a run of dp-augment, or windows of demonstrations: which ones, and where they come from."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.augment.reading import read_known
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.augment.windows import read_windows
from diffusion_policy.config import Horizons
from diffusion_policy.data.dataset import split_episodes
from diffusion_policy.data.origin import Origin, window_origin
from diffusion_policy.data.outcomes import Ends
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import one_dataset, resolve_dataset
from diffusion_policy.rollout.recorded_env import recorded_bounds
from diffusion_policy.settings import build, plain, section

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AugmentData:
    """Which transitions or windows a model learns from.

    Args:
        episodes: at most so many, drawn by the seed, the same that dp-train draws with data.val_ratio=0; None for all.
        transitions: at most so many of theirs (or windows), drawn by the seed; None for all.
        drop_short: of windows, leave out episodes shorter than one instead of refusing the data set.
        fields: keys of the observation; None for all.
        rounded: columns of whole numbers; see `augment.reading`.
        one_hot: columns of which one is 1.
        ends: see `data.outcomes.Ends`.
    """

    episodes: int | None = None
    transitions: int | None = None
    drop_short: bool = False
    fields: tuple[str, ...] | None = None
    rounded: tuple[str, ...] = ()
    one_hot: tuple[str, ...] = ()
    ends: Ends = "refuse"

    def __post_init__(self) -> None:
        if self.transitions is not None and self.transitions < 2:
            raise ConfigError(f"data.transitions must be at least 2, or null for all, but got {self.transitions}")


@dataclass(frozen=True)
class RealData:
    """Real transitions or windows, and where they come from.

    Args:
        table: the rows.
        bounds: that sampled actions are clipped to: the environment's, or else the smallest and largest of the data;
            of windows always these, for the policy that learns from them knows no others.
        of_env: whether they are the environment's.
        digest: of the rows and their columns.
        origin: of which episodes they are.
        left_out: steps whose outcome nobody saw.
        terminals_left_out: those of them that are terminal.
        provenance: of the data set.
        horizons: of windows; None of transitions.
    """

    table: Transitions
    bounds: Bounds
    of_env: bool
    digest: str
    origin: Origin
    left_out: int
    terminals_left_out: int
    provenance: Mapping[str, Any]
    horizons: Horizons | None = None

    def told(self) -> dict[str, Any]:
        """Returns what is kept with a model, and with its samples."""
        return {
            "digest": self.digest,
            "transitions": len(self.table),
            "terminals": int(self.table.terminated.sum()),
            "left_out": self.left_out,
            "terminals_left_out": self.terminals_left_out,
            "origin": plain(self.origin),
            **({} if self.horizons is None else {"horizons": plain(self.horizons)}),
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
    """Returns the transitions, or with `horizons` the windows, that the sections of a configuration choose."""
    data = build(AugmentData, section(settings, "data"), "data")
    horizons = build(Horizons, section(settings, "horizons"), "horizons") if settings.get("horizons") else None
    seed = int(settings.get("seed", 0))
    if not settings.get("dataset"):
        raise ConfigError("dataset: expected a zarr folder or .zip, got nothing; give dataset=PATH")
    with ReplayBuffer.open(resolve_dataset(one_dataset(settings["dataset"]))) as buffer:
        episodes, _ = split_episodes(buffer.num_episodes, val_ratio=0.0, seed=seed, max_episodes=data.episodes)
        if horizons is None:
            real = _transitions(buffer, data, episodes, seed)
        else:
            real = _windows(buffer, data, horizons, episodes, seed)
    if real.warning:
        logger.warning("%s: %s", settings["dataset"], real.warning)
    return real


def _transitions(buffer: ReplayBuffer, data: AugmentData, episodes: NDArray[np.int64], seed: int) -> RealData:
    if data.drop_short:
        raise ConfigError("data.drop_short: only windows can be too long for an episode; drop it")
    chosen: dict[str, Any] = {"ends": data.ends, "rounded": data.rounded, "one_hot": data.one_hot}
    known = read_known(buffer, fields=data.fields, episodes=episodes, **chosen)
    table = _some(known.table, data.transitions, seed)
    limits = recorded_bounds(buffer)
    if limits is not None and len(limits[0]) != table.columns.action_size:
        raise DataError(f"{buffer.location}: the environment's bounds are of another action: {limits}")
    return RealData(
        table, _bounds(limits, table), limits is not None, _digest(table),
        Origin.read(buffer, _keys(buffer, table), episodes, known.terminated), known.left_out,
        known.terminals_left_out, plain(buffer.attrs.get("provenance") or {}),
    )  # fmt: skip


def _windows(
    buffer: ReplayBuffer, data: AugmentData, horizons: Horizons, episodes: NDArray[np.int64], seed: int
) -> RealData:
    if data.ends != "refuse":
        raise ConfigError("data.ends: windows of demonstrations tell of no ends; drop it")
    chosen: dict[str, Any] = {"drop_short": data.drop_short, "rounded": data.rounded, "one_hot": data.one_hot}
    known = read_windows(buffer, horizons, fields=data.fields, episodes=episodes, **chosen)
    table = _some(known.table, data.transitions, seed)
    origin = window_origin(buffer, ["action", *table.columns.obs], known.episodes)
    provenance = plain(buffer.attrs.get("provenance") or {})
    return RealData(table, _bounds(None, table), False, _digest(table), origin, 0, 0, provenance, horizons)


def _some(table: Transitions, count: int | None, seed: int) -> Transitions:
    if count is None or count >= len(table):
        return table
    rows = np.random.default_rng(seed).choice(len(table), count, replace=False)
    return table.subset(np.sort(rows))


def _digest(table: Transitions) -> str:
    of_rows = hashlib.sha256(json.dumps(table.columns.told()).encode())
    of_rows.update(np.ascontiguousarray(table.rows).data)
    return of_rows.hexdigest()


def _keys(buffer: ReplayBuffer, table: Transitions) -> list[str]:
    following = [NEXT + key for key in table.columns.obs]
    return ["action", "reward", "terminated", *table.columns.obs, *(key for key in following if key in buffer)]


def _bounds(limits: list[list[float]] | None, table: Transitions) -> Bounds:
    """Returns the bounds (low, high) of the action; of the data where nobody knows the environment's."""
    action = table.action.reshape(-1, table.columns.action_size)
    low, high = limits or (action.min(axis=0), action.max(axis=0))
    return tuple(map(float, low)), tuple(map(float, high))
