"""The demonstrations of a run: read, split by episodes, resident where the networks are."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.data.dataset import WindowDataset, split_episodes
from diffusion_policy.data.episodes import succeeded
from diffusion_policy.data.mirror import Mirror
from diffusion_policy.data.mixing import MixedTransitions, MixedWindows
from diffusion_policy.data.origin import Origin, window_origin
from diffusion_policy.data.outcomes import Ends, Outcomes
from diffusion_policy.data.raw_file import remembered_digest
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence
from diffusion_policy.data.source import Source, obs_source
from diffusion_policy.data.transitions import TransitionDataset
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.policies.policy import Policy
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.symmetry import MirrorChoice
from diffusion_policy.settings import build, plain, section
from diffusion_policy.training.rewards import RewardScaling
from diffusion_policy.training.synthetic import (
    SyntheticDemonstrations,
    SyntheticTransitions,
    read_synthetic,
    read_synthetic_windows,
)


@dataclass(frozen=True)
class DataConfig:
    """Which episodes a run trains on.

    Args:
        val_ratio: share of episodes held out for validation.
        episodes: at most this many training episodes, drawn by the seed; None for all.
        successful: only episodes that succeeded, by what the data set's `success` tells.
        drop_short: leave out episodes shorter than a window instead of refusing the data set.
        mirror: train on the mirror image of each episode too; "auto": where the environment has a mirror. An epoch
            is then twice as long.
        memory_limit: of the data: "auto" (half of the free memory), a size like "4GB", or bytes. Pictures beyond it
            are decoded once into a raw file in the user's cache folder and read from there.
        ends: for agents, what to do where a time limit seems to be stored as termination; see `outcomes.Ends`.
        standardize_rewards: for agents, rewards get mean 0 and deviation 1 over the training episodes first.
        reward_shift: for agents, added to every reward.
        reward_scale: for agents, what the shifted reward is multiplied by.
        synthetic: a data set of dp-augment that is mixed in: of transitions for agents, of windows for imitation;
            normalisers never see it, nor the mirror.
        synthetic_ratio: their share of each batch, exact but for rounding to whole rows.
        synthetic_from: "same" refuses those that were made of other transitions than these, "any" takes them.
    """

    val_ratio: float = 0.02
    episodes: int | None = None
    successful: bool = False
    drop_short: bool = False
    mirror: MirrorChoice = False
    memory_limit: int | str = "auto"
    ends: Ends = "refuse"
    standardize_rewards: bool = False
    reward_shift: float = 0.0
    reward_scale: float = 1.0
    synthetic: str | None = None
    synthetic_ratio: float = 0.5
    synthetic_from: Literal["same", "any"] = "same"

    def __post_init__(self) -> None:
        Residence(self.memory_limit)  # refuses what is no size
        if not 0 <= self.synthetic_ratio <= 1:
            raise ConfigError(f"data.synthetic_ratio must be in [0, 1], but got {self.synthetic_ratio}")
        if not 0 <= self.val_ratio < 1:
            raise ConfigError(f"data.val_ratio must be in [0, 1), but got {self.val_ratio}")


_OF_AGENTS = ("ends", "reward_shift", "reward_scale", "standardize_rewards")


@dataclass(frozen=True)
class Demonstrations:
    """The windows a run trains and validates on, and where they come from.

    Args:
        train: windows of the training episodes.
        held_out: windows of the validation episodes; None when there are none.
        digest: of the keys that are read.
        provenance: what the data set says of itself.
        transitions: the training windows with what came of them, for an agent; None for imitation.
        synthetic: what a data set of synthetic transitions or windows says of itself; None where none are mixed in.
        mixed: the training windows with synthetic ones, for imitation; None where none are mixed in.
    """

    train: WindowDataset
    held_out: WindowDataset | None
    digest: str
    provenance: Mapping[str, Any]
    transitions: TransitionDataset | MixedTransitions | None = None
    synthetic: Mapping[str, Any] | None = None
    mixed: MixedWindows | None = None

    @property
    def batches(self) -> MixedTransitions | TransitionDataset | MixedWindows | WindowDataset:
        """What a loop trains on."""
        return next(each for each in (self.transitions, self.mixed, self.train) if each is not None)


def load_demonstrations(
    settings: Mapping[str, Any],
    policy: Policy,
    seed: int,
    device: torch.device,
    mirror: Mirror | None = None,
    *,
    discount: float | None = None,
    progress: bool = True,
    sharers: int = 1,
) -> Demonstrations:
    """Returns the demonstrations of `dataset`, split by episodes, resident on `device`.

    Training episodes are joined by their mirror images, if there is a `mirror`; held-out ones never are. With a
    `discount` they become transitions too. `progress` shows bars where pictures are read; `sharers` processes share
    the memory.
    """
    if not settings.get("dataset"):
        raise ConfigError("dataset: expected a zarr folder or .zip, got nothing; give dataset=PATH or package://pusht")
    data = build(DataConfig, section(settings, "data"), "data")
    if discount is None:
        _refuse_of_agents(data)
    obs_spec, action_spec = policy.obs_spec, policy.action_spec
    with ReplayBuffer.open(resolve_dataset(str(settings["dataset"]))) as buffer:
        allowed = _successes(buffer) if data.successful else None
        train, held_out = split_episodes(
            buffer.num_episodes, val_ratio=data.val_ratio, seed=seed, max_episodes=data.episodes, allowed=allowed
        )
        with ExitStack() as shown:
            residence = Residence(
                data.memory_limit, on_steps=_progress(buffer, obs_spec, shown, progress), sharers=sharers
            )

            def windows(episodes: Sequence[int] | np.ndarray) -> WindowDataset:
                options: dict[str, Any] = {"episodes": episodes, "drop_short": data.drop_short, "device": device}
                return WindowDataset.from_buffer(
                    buffer, obs_spec, action_spec, policy.horizons, residence=residence, **options
                )

            train_set, held_out_set = windows(train), windows(held_out) if len(held_out) else None
        keys, outcomes, episodes = _keys_read(buffer, obs_spec, action_spec), None, train_set.index.episode_ids
        if discount is not None:
            outcomes = Outcomes.read(buffer, episodes, obs_spec, data.ends)
            scaling = _scaling(outcomes.reward, data)
            outcomes = replace(outcomes, reward=scaling(outcomes.reward))
            following = {f"next_{key}" for key in keys} & set(buffer.keys())
            keys = sorted({*keys, *following, "reward", "terminated"})
        if mirror is not None:
            pictures = progress and any(field.is_picture for field in obs_spec.values())
            with ProgressBar("mirror", train_set.num_steps, enabled=pictures) as bar:  # it looks at every picture
                train_set = train_set.with_mirrored(mirror, action_spec.shape, on_step=bar.update)
        digest = _digest(buffer, keys, obs_spec, residence)
        transitions: TransitionDataset | MixedTransitions | None = None
        added: SyntheticTransitions | SyntheticDemonstrations | None = None
        mixed = None
        if outcomes is not None and discount is not None:
            transitions = TransitionDataset(train_set, outcomes, discount=discount)
            if data.synthetic is not None:
                ended = outcomes.terminated
                added = read_synthetic(
                    data.synthetic, obs_spec, action_spec, policy.horizons, discount=discount, device=device,
                    scaled=scaling, trained_on=lambda keys: Origin.read(buffer, keys, episodes, ended),
                    of_any=data.synthetic_from == "any",
                )  # fmt: skip
                transitions = MixedTransitions(transitions, added.transitions, data.synthetic_ratio)
        elif data.synthetic is not None:
            added = read_synthetic_windows(
                data.synthetic, obs_spec, action_spec, policy.horizons, device=device,
                trained_on=lambda keys: window_origin(buffer, keys, episodes), of_any=data.synthetic_from == "any",
            )  # fmt: skip
            mixed = MixedWindows(train_set, added.windows, data.synthetic_ratio)
        synthetic = None
        if added is not None:
            digest = hashlib.sha256(f"{digest} {added.digest}".encode()).hexdigest()
            synthetic = {"digest": added.digest, "ratio": data.synthetic_ratio, "provenance": added.provenance}
        return Demonstrations(
            train=train_set,
            held_out=held_out_set,
            digest=digest,
            provenance=plain(buffer.attrs.get("provenance") or dict(buffer.attrs)),
            transitions=transitions,
            synthetic=synthetic,
            mixed=mixed,
        )


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


def _scaling(reward: np.ndarray, data: DataConfig) -> RewardScaling:
    """Returns what scales rewards like these (N,), as the configuration wants it."""
    return RewardScaling.of(
        reward, standardize=data.standardize_rewards, shift=data.reward_shift, scale=data.reward_scale
    )


def _refuse_of_agents(data: DataConfig) -> None:
    """Settings that only agents read are a mistake without one."""
    plain_data = DataConfig()
    changed = [name for name in _OF_AGENTS if getattr(data, name) != getattr(plain_data, name)]
    if changed:
        listed = ", ".join(f"data.{name}" for name in changed)
        raise ConfigError(
            f"{listed}: imitation looks at no rewards and no ends; name an agent (agent=diffusion_ql, ...), or drop it"
        )


def _digest(buffer: ReplayBuffer, keys: list[str], obs_spec: ObsSpec, residence: Residence) -> str:
    if any(field.is_picture for field in obs_spec.values()):
        return remembered_digest(buffer, keys, residence.cache)
    return buffer.digest(keys)


def _keys_read(buffer: ReplayBuffer, obs_spec: ObsSpec, action_spec: ActionSpec) -> list[str]:
    sources = [obs_source(name, field, buffer) for name, field in obs_spec.items()]
    names = (action_spec.source,) if isinstance(action_spec.source, str) else action_spec.source
    return sorted({source.key for source in [*sources, *map(Source.parse, names)]})


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
