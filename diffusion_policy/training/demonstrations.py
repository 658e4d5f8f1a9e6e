"""The demonstrations of a run: read, split by episodes, resident where the networks are; of several data sets, too."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from diffusion_policy.config import ObsSpec
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.joining import JoinedTransitions, JoinedWindows
from diffusion_policy.data.likeness import check_alike
from diffusion_policy.data.mirror import Mirror
from diffusion_policy.data.mixing import MixedTransitions, MixedWindows
from diffusion_policy.data.origin import Origin, window_origin
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence
from diffusion_policy.data.source import obs_source
from diffusion_policy.data.transitions import TransitionDataset
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.policies.policy import Policy
from diffusion_policy.settings import build, section
from diffusion_policy.training.data_config import DataConfig
from diffusion_policy.training.data_identity import DataIdentity
from diffusion_policy.training.data_set import DataSet, SetReader
from diffusion_policy.training.data_sets import Chosen, chosen_sets, short_names
from diffusion_policy.training.rewards import RewardScaling
from diffusion_policy.training.synthetic import RealPart, Synthetic, read_synthetic, read_synthetic_windows
from diffusion_policy.training.weighted_order import Shares

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demonstrations:
    """The windows a run trains and validates on, and where they come from.

    Args:
        sets: the data sets, one as a rule.
        train: windows of the training episodes, of all sets.
        held_out: windows of the validation episodes; None when there are none.
        digest: of the keys that are read, of several sets also of their weights.
        transitions: the training windows with what came of them, for an agent; None for imitation.
        synthetic: what a data set of synthetic transitions or windows says of itself; None where none are mixed in.
        mixed: the training windows with synthetic ones, for imitation; None where none are mixed in.
        shares: of several sets with weights, in the batches; None without.
    """

    sets: tuple[DataSet, ...]
    train: WindowDataset | JoinedWindows
    held_out: WindowDataset | JoinedWindows | None
    digest: str
    transitions: TransitionDataset | JoinedTransitions | MixedTransitions | None = None
    synthetic: Mapping[str, Any] | None = None
    mixed: MixedWindows | None = None
    shares: Shares | None = None

    @property
    def batches(
        self,
    ) -> MixedTransitions | JoinedTransitions | TransitionDataset | MixedWindows | JoinedWindows | WindowDataset:
        """What a loop trains on."""
        return next(each for each in (self.transitions, self.mixed, self.train) if each is not None)

    @property
    def several(self) -> bool:
        """Whether there are several data sets."""
        return len(self.sets) > 1

    @property
    def share_of(self) -> dict[str, float]:
        """What each set gives to the batches, by name: by its weight, or in proportion to its windows; sums to 1."""
        given = {each.name: each.chosen.weight or float(len(each.train)) for each in self.sets}
        return {name: weight / sum(given.values()) for name, weight in given.items()}

    def told(self) -> Iterator[tuple[DataSet, dict[str, Any]]]:
        """Yields each set and what a run's files say of it."""
        for each in self.sets:
            counts = {"windows": len(each.train), "episodes": len(each.episodes)}
            yield each, {"digest": each.digest, "share": self.share_of[each.name], **counts}

    @property
    def identity(self) -> DataIdentity:
        """What a run goes on with only."""
        told = {each.name: f"digest {each.digest[:12]}{_weighed(each.chosen)}" for each in self.sets}
        dataset = ", ".join(each.chosen.path for each in self.sets)
        return DataIdentity(dataset, self.digest, told if self.several else {})


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
    the memory. Of several data sets each is split and mirrored by itself, and memory goes to the first ones first.
    """
    chosen = chosen_sets(settings.get("dataset"))
    data = build(DataConfig, section(settings, "data"), "data")
    if discount is None:
        data.refuse_what_agents_read()
    with ExitStack() as opened:
        buffers = [opened.enter_context(ReplayBuffer.open(resolve_dataset(each.path))) for each in chosen]
        check_alike(buffers, policy.obs_spec, policy.action_spec)
        residence = Residence(data.memory_limit, sharers=sharers)
        reader = SetReader(policy, data, seed, device, mirror, discount is not None, progress)
        sets: list[DataSet] = []
        for name, each, buffer in zip(short_names(chosen), chosen, buffers, strict=True):
            sets.append(reader.read(name, each, buffer, residence))
            residence = residence.after(sets[-1].resident_bytes)
        found = _joined(sets)
        scaling = _scaling(sets, data)
        if discount is not None:
            found = _with_transitions(found, scaling, discount)
        if data.synthetic is None:
            return found
        real = [_real_part(*each, policy.obs_spec) for each in zip(sets, buffers, strict=True)]
        return _with_synthetic(found, real, policy, data, device, scaling, discount)


def _joined(sets: Sequence[DataSet]) -> Demonstrations:
    """Returns the demonstrations of all data sets; of one, its own."""
    if len(sets) == 1:
        return Demonstrations(tuple(sets), sets[0].train, sets[0].held_out, sets[0].digest)
    alike: dict[str, str] = {}
    for each in sets:
        other = alike.setdefault(each.digest, each.name)
        if other != each.name:
            logger.warning("dataset: %s holds the same as %s: its episodes count twice", each.name, other)
    train = JoinedWindows({each.name: each.train for each in sets})
    held = {each.name: each.held_out for each in sets if each.held_out is not None}
    told = json.dumps([[each.digest, each.chosen.weight] for each in sets])
    return Demonstrations(
        tuple(sets),
        train,
        JoinedWindows(held) if held else None,
        hashlib.sha256(told.encode()).hexdigest(),
        shares=_shares(sets, train.sizes),
    )


def _shares(sets: Sequence[DataSet], sizes: tuple[int, ...]) -> Shares | None:
    weights = [each.chosen.weight for each in sets]
    given = tuple(weight for weight in weights if weight is not None)
    return Shares(tuple(each.name for each in sets), sizes, given) if len(given) == len(sets) > 1 else None


def _weighed(chosen: Chosen) -> str:
    return "" if chosen.weight is None else f", weight {chosen.weight:g}"


def _scaling(sets: Sequence[DataSet], data: DataConfig) -> RewardScaling:
    """Returns what makes of stored rewards what an agent sees: the same for all sets, measured on all their steps."""
    rewards = [each.outcomes.reward for each in sets if each.outcomes is not None] or [np.zeros(1, np.float32)]
    return RewardScaling.of(
        np.concatenate(rewards),
        standardize=data.standardize_rewards,
        shift=data.reward_shift,
        scale=data.reward_scale,
    )


def _with_transitions(found: Demonstrations, scaling: RewardScaling, discount: float) -> Demonstrations:
    parts = {}
    for each in found.sets:
        if each.outcomes is not None:
            scaled = replace(each.outcomes, reward=scaling(each.outcomes.reward))
            parts[each.name] = TransitionDataset(each.train, scaled, discount=discount)
    if not found.several:
        return replace(found, transitions=parts[found.sets[0].name])
    joined = JoinedTransitions(parts)
    return replace(found, transitions=joined, shares=_shares(found.sets, joined.sizes))


def _real_part(read: DataSet, buffer: ReplayBuffer, obs_spec: ObsSpec) -> RealPart:
    """Returns what synthetic rows may have been made of."""

    def origin(keys: Sequence[str]) -> Origin:
        if read.outcomes is None:
            return window_origin(buffer, keys, read.episodes)
        return Origin.read(buffer, keys, read.episodes, read.outcomes.terminated)

    return RealPart(origin, {name: obs_source(name, field, buffer) for name, field in obs_spec.items()})


def _with_synthetic(
    found: Demonstrations,
    real: Sequence[RealPart],
    policy: Policy,
    data: DataConfig,
    device: torch.device,
    scaling: RewardScaling,
    discount: float | None,
) -> Demonstrations:
    """Returns demonstrations with synthetic rows mixed into all of them."""
    chosen: dict[str, Any] = {"device": device, "real": real, "of_any": data.synthetic_from == "any"}
    specs = (str(data.synthetic), policy.obs_spec, policy.action_spec, policy.horizons)
    recorded = found.transitions
    if discount is None or recorded is None or isinstance(recorded, MixedTransitions):
        drawn = read_synthetic_windows(*specs, **chosen)
        mixed = MixedWindows(found.train, drawn.rows, data.synthetic_ratio)
        return replace(_told_of(found, drawn, data.synthetic_ratio), mixed=mixed)
    added = read_synthetic(*specs, discount=discount, scaled=scaling, **chosen)
    transitions = MixedTransitions(recorded, added.rows, data.synthetic_ratio)
    return replace(_told_of(found, added, data.synthetic_ratio), transitions=transitions)


def _told_of(found: Demonstrations, added: Synthetic[Any], ratio: float) -> Demonstrations:
    """Returns demonstrations that say what is mixed into them; the digest is of both."""
    return replace(
        found,
        digest=hashlib.sha256(f"{found.digest} {added.digest}".encode()).hexdigest(),
        synthetic={"digest": added.digest, "ratio": ratio, "provenance": added.provenance},
    )
