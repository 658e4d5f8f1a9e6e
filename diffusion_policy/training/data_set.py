"""One data set of a run: read, split by episodes, resident where the networks are."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.data.dataset import WindowDataset, split_episodes
from diffusion_policy.data.episodes import succeeded
from diffusion_policy.data.mirror import Mirror
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.raw_file import remembered_digest
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence
from diffusion_policy.data.source import action_sources, obs_source, shadowed
from diffusion_policy.errors import DataError
from diffusion_policy.policies.policy import Policy
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.settings import plain
from diffusion_policy.training.data_config import DataConfig
from diffusion_policy.training.data_sets import Chosen

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSet:
    """One of the data sets that a run learns from.

    Args:
        name: what metrics call it.
        chosen: what the configuration says of it.
        train: windows of the training episodes, and of their mirror images.
        held_out: windows of the validation episodes; None when there are none.
        digest: of the keys that are read.
        provenance: what the data set says of itself.
        episodes: the training episodes.
        outcomes: what came of their steps, for an agent; rewards as they are stored.
        resident_bytes: of its observations, in memory, without mirror images.
    """

    name: str
    chosen: Chosen
    train: WindowDataset
    held_out: WindowDataset | None
    digest: str
    provenance: Mapping[str, Any]
    episodes: np.ndarray
    outcomes: Outcomes | None
    resident_bytes: int


@dataclass(frozen=True)
class SetReader:
    """Reads data sets, each in the same way.

    Args:
        policy: tells fields and horizons.
        data: which episodes.
        seed: of the split.
        device: where windows are kept.
        mirror: of the training episodes; None for none.
        agent: whether rewards and ends are read.
        progress: shows bars where pictures are read.
    """

    policy: Policy
    data: DataConfig
    seed: int
    device: torch.device
    mirror: Mirror | None
    agent: bool
    progress: bool

    def read(self, name: str, chosen: Chosen, buffer: ReplayBuffer, residence: Residence) -> DataSet:
        """Returns a data set.

        Args:
            name: what metrics call it.
            chosen: what the configuration says of it.
            buffer: the opened data set.
            residence: how much may stay in memory.

        Raises:
            DataError: it does not fit the task, or is not what the configuration says.
        """
        obs_spec, action_spec = self.policy.obs_spec, self.policy.action_spec
        for field_name, field in obs_spec.items():
            if (other := shadowed(field_name, field, buffer)) is not None:
                logger.warning(
                    "obs.%s is read from the key of its own name in %s, although source names '%s', which holds other "
                    "numbers; call the field something else to read these",
                    field_name, buffer.location, other,
                )  # fmt: skip
        train, held_out = self._windows(buffer, residence)
        episodes, keys = train.index.episode_ids, _keys_read(buffer, obs_spec, action_spec)
        resident = train.resident_bytes + (0 if held_out is None else held_out.resident_bytes)
        outcomes = Outcomes.read(buffer, episodes, obs_spec, self.data.ends) if self.agent else None
        if self.agent:
            keys = _with_outcomes(buffer, keys)
        if self.mirror is not None:
            pictures = self.progress and any(field.is_picture for field in obs_spec.values())
            with ProgressBar("mirror", train.num_steps, enabled=pictures) as bar:  # it looks at every picture
                train = train.with_mirrored(self.mirror, action_spec.shape, on_step=bar.update)
        digest = _digest(buffer, keys, obs_spec, residence)
        if chosen.digest not in (None, digest):
            raise DataError(
                f"{buffer.location} has changed: dataset says digest {str(chosen.digest)[:12]}, but the keys that are "
                f"read have {digest[:12]}; restore it, or begin a run without digest:"
            )
        provenance = plain(buffer.attrs.get("provenance") or dict(buffer.attrs))
        return DataSet(name, chosen, train, held_out, digest, provenance, episodes, outcomes, resident)

    def _windows(self, buffer: ReplayBuffer, residence: Residence) -> tuple[WindowDataset, WindowDataset | None]:
        """Returns the windows of the training episodes, and of those held out; None where none are."""
        policy, data = self.policy, self.data
        allowed = _successes(buffer) if data.successful else None
        train, held_out = split_episodes(
            buffer.num_episodes, val_ratio=data.val_ratio, seed=self.seed, max_episodes=data.episodes, allowed=allowed
        )
        with ExitStack() as shown:
            watched = replace(residence, on_steps=_progress(buffer, policy.obs_spec, shown, self.progress))

            def windows(episodes: np.ndarray) -> WindowDataset:
                options: dict[str, Any] = {"episodes": episodes, "drop_short": data.drop_short, "device": self.device}
                return WindowDataset.from_buffer(
                    buffer, policy.obs_spec, policy.action_spec, policy.horizons, residence=watched, **options
                )

            return windows(train), windows(held_out) if len(held_out) else None


def _successes(buffer: ReplayBuffer) -> np.ndarray:
    """Returns which episodes succeeded, (M,)."""
    if "success" not in buffer:
        raise DataError(
            f"{buffer.location}: data.successful=true needs to know which episodes succeeded, but there is no "
            f"'success'; dp-collect records it where the environment tells it, or drop data.successful"
        )
    found = succeeded(buffer["success"], buffer.episode_ends)
    if not found.any():
        raise DataError(f"{buffer.location}: none of {len(found)} episodes succeeded; drop data.successful")
    return found


def _digest(buffer: ReplayBuffer, keys: list[str], obs_spec: ObsSpec, residence: Residence) -> str:
    if any(field.is_picture for field in obs_spec.values()):
        return remembered_digest(buffer, keys, residence.cache)
    return buffer.digest(keys)


def _keys_read(buffer: ReplayBuffer, obs_spec: ObsSpec, action_spec: ActionSpec) -> list[str]:
    sources = [obs_source(name, field, buffer) for name, field in obs_spec.items()]
    return sorted({source.key for source in [*sources, *action_sources(action_spec, buffer)]})


def _with_outcomes(buffer: ReplayBuffer, keys: Sequence[str]) -> list[str]:
    """Returns the keys read, and those that tell what came of a step."""
    following = {f"next_{key}" for key in keys} & set(buffer.keys())
    return sorted({*keys, *following, "reward", "terminated"})


def _progress(buffer: ReplayBuffer, obs_spec: ObsSpec, shown: ExitStack, enabled: bool) -> Callable[[int], None]:
    """Returns what counts the pictures that are read, on a bar that ends with `shown`; numbers are there at once."""
    pictures = sum(field.is_picture for field in obs_spec.values())
    total = pictures * buffer.num_steps
    bar = shown.enter_context(ProgressBar("load pictures", total, enabled=enabled and pictures > 0))
    done = 0

    def count(steps: int) -> None:
        nonlocal done
        done = min(total, done + steps)
        bar.update(done)

    return count
