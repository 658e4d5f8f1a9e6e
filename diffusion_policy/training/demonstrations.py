"""The demonstrations of a run: read, split by episodes, resident where the networks are."""

import hashlib
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
from diffusion_policy.data.mixing import MixedTransitions, MixedWindows
from diffusion_policy.data.origin import Origin, window_origin
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.raw_file import remembered_digest
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence
from diffusion_policy.data.source import Source, obs_source
from diffusion_policy.data.transitions import TransitionDataset
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.policies.policy import Policy
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.settings import build, plain, section
from diffusion_policy.training.data_config import DataConfig
from diffusion_policy.training.rewards import RewardScaling
from diffusion_policy.training.synthetic import Synthetic, read_synthetic, read_synthetic_windows


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
        data.refuse_what_agents_read()
    obs_spec, action_spec = policy.obs_spec, policy.action_spec
    with ReplayBuffer.open(resolve_dataset(str(settings["dataset"]))) as buffer:
        residence = Residence(data.memory_limit, sharers=sharers)
        train_set, held_out = _split_windows(buffer, policy, data, residence, seed, device, progress=progress)
        episodes, keys = train_set.index.episode_ids, _keys_read(buffer, obs_spec, action_spec)
        if discount is not None:
            outcomes, scaling = _outcomes(buffer, episodes, obs_spec, data)
            keys = _with_outcomes(buffer, keys)
        if mirror is not None:
            pictures = progress and any(field.is_picture for field in obs_spec.values())
            with ProgressBar("mirror", train_set.num_steps, enabled=pictures) as bar:  # it looks at every picture
                train_set = train_set.with_mirrored(mirror, action_spec.shape, on_step=bar.update)
        digest = _digest(buffer, keys, obs_spec, residence)
        provenance = plain(buffer.attrs.get("provenance") or dict(buffer.attrs))
        found = Demonstrations(train=train_set, held_out=held_out, digest=digest, provenance=provenance)
        of_any = data.synthetic_from == "any"
        sources = {name: obs_source(name, field, buffer) for name, field in obs_spec.items()}
        if discount is None:
            if data.synthetic is None:
                return found
            drawn = read_synthetic_windows(
                data.synthetic, obs_spec, action_spec, policy.horizons, device=device,
                trained_on=lambda keys: window_origin(buffer, keys, episodes), sources=sources, of_any=of_any,
            )  # fmt: skip
            joined = MixedWindows(train_set, drawn.rows, data.synthetic_ratio)
            return replace(_with_synthetic(found, drawn, data.synthetic_ratio), mixed=joined)
        real = TransitionDataset(train_set, outcomes, discount=discount)
        if data.synthetic is None:
            return replace(found, transitions=real)
        added = read_synthetic(
            data.synthetic, obs_spec, action_spec, policy.horizons, discount=discount, device=device, scaled=scaling,
            trained_on=lambda keys: Origin.read(buffer, keys, episodes, outcomes.terminated), sources=sources,
            of_any=of_any,
        )  # fmt: skip
        transitions = MixedTransitions(real, added.rows, data.synthetic_ratio)
        return replace(_with_synthetic(found, added, data.synthetic_ratio), transitions=transitions)


def _split_windows(
    buffer: ReplayBuffer,
    policy: Policy,
    data: DataConfig,
    residence: Residence,
    seed: int,
    device: torch.device,
    *,
    progress: bool,
) -> tuple[WindowDataset, WindowDataset | None]:
    """Returns the windows of the training episodes, and of those held out; None where none are."""
    allowed = _successes(buffer) if data.successful else None
    train, held_out = split_episodes(
        buffer.num_episodes, val_ratio=data.val_ratio, seed=seed, max_episodes=data.episodes, allowed=allowed
    )
    with ExitStack() as shown:
        watched = replace(residence, on_steps=_progress(buffer, policy.obs_spec, shown, progress))

        def windows(episodes: np.ndarray) -> WindowDataset:
            options: dict[str, Any] = {"episodes": episodes, "drop_short": data.drop_short, "device": device}
            return WindowDataset.from_buffer(
                buffer, policy.obs_spec, policy.action_spec, policy.horizons, residence=watched, **options
            )

        return windows(train), windows(held_out) if len(held_out) else None


def _outcomes(
    buffer: ReplayBuffer, episodes: np.ndarray, obs_spec: ObsSpec, data: DataConfig
) -> tuple[Outcomes, RewardScaling]:
    """Returns what came of the steps of some episodes, with rewards as an agent sees them, and what scales these."""
    outcomes = Outcomes.read(buffer, episodes, obs_spec, data.ends)
    scaling = RewardScaling.of(
        outcomes.reward, standardize=data.standardize_rewards, shift=data.reward_shift, scale=data.reward_scale
    )
    return replace(outcomes, reward=scaling(outcomes.reward)), scaling


def _with_synthetic(found: Demonstrations, added: Synthetic[Any], ratio: float) -> Demonstrations:
    """Returns demonstrations that say what is mixed into them; the digest is of both."""
    return replace(
        found,
        digest=hashlib.sha256(f"{found.digest} {added.digest}".encode()).hexdigest(),
        synthetic={"digest": added.digest, "ratio": ratio, "provenance": added.provenance},
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


def _digest(buffer: ReplayBuffer, keys: list[str], obs_spec: ObsSpec, residence: Residence) -> str:
    if any(field.is_picture for field in obs_spec.values()):
        return remembered_digest(buffer, keys, residence.cache)
    return buffer.digest(keys)


def _keys_read(buffer: ReplayBuffer, obs_spec: ObsSpec, action_spec: ActionSpec) -> list[str]:
    sources = [obs_source(name, field, buffer) for name, field in obs_spec.items()]
    names = (action_spec.source,) if isinstance(action_spec.source, str) else action_spec.source
    return sorted({source.key for source in [*sources, *map(Source.parse, names)]})


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
