"""Synthetic rows for batches, a data set that dp-augment made: transitions for an agent, windows for imitation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from diffusion_policy.config import ActionSpec, Horizons, ObsField, ObsSpec
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.mixing import SyntheticWindows
from diffusion_policy.data.origin import Origin
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import Source, named_source, read_obs, stored_shape
from diffusion_policy.data.transitions import TransitionDataset
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.settings import plain

Rows = TypeVar("Rows")


@dataclass(frozen=True)
class RealPart:
    """One of the data sets beside which synthetic rows are learned from, and of which they may have been made.

    Args:
        trained_on: its origin, by the keys that count.
        sources: what each field is in it.
    """

    trained_on: Callable[[Sequence[str]], Origin]
    sources: Mapping[str, Source]


@dataclass(frozen=True)
class Synthetic(Generic[Rows]):
    """Synthetic rows and where they come from.

    Args:
        rows: all of them: transitions, or windows.
        digest: of the data set.
        provenance: what it says of itself.
    """

    rows: Rows
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
    real: Sequence[RealPart],
    of_any: bool = False,
) -> Synthetic[TransitionDataset]:
    """Returns the transitions of a data set of dp-augment.

    Args:
        path: of the zarr.
        obs_spec: the policy's fields.
        action_spec: its actions.
        horizons: its horizons, of one step each: a synthetic transition has no neighbours.
        discount: of a step.
        device: where they are kept.
        scaled: rewards (N,) as the agent sees them.
        real: the data sets beside it; it must have been made of one of them.
        of_any: take transitions that were made of other ones, too.

    Raises:
        ConfigError: the horizons are longer, or the model learned from other transitions than the agent, or from other
            numbers of them.
        DataError: it lacks a field, or is not all there.
    """
    if (horizons.obs_horizon, horizons.action_horizon, horizons.pred_horizon) != (1, 1, 1):
        raise ConfigError(
            f"data.synthetic holds single transitions, but horizons are {horizons.obs_horizon}, "
            f"{horizons.action_horizon}, {horizons.pred_horizon}; use preset=offline, or set all three to 1"
        )
    with ReplayBuffer.open(resolve_dataset(path)) as buffer:
        _check_whole(path, buffer)
        windows = WindowDataset.from_buffer(buffer, obs_spec, action_spec, horizons, device=device)
        outcomes = Outcomes.read(buffer, windows.index.episode_ids, obs_spec, "terminated")
        provenance = plain(buffer.attrs.get("provenance") or {})
        digest = buffer.digest()
        if not of_any:
            made_of = _origin_among(path, provenance, real)
            _check_sources(path, buffer, obs_spec, made_of.sources)
    outcomes = replace(outcomes, reward=scaled(outcomes.reward))
    return Synthetic(TransitionDataset(windows, outcomes, discount=discount), digest, provenance)


def read_synthetic_windows(
    path: str,
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    horizons: Horizons,
    *,
    device: torch.device,
    real: Sequence[RealPart],
    of_any: bool = False,
) -> Synthetic[SyntheticWindows]:
    """Returns the windows of a data set of dp-augment augment=demonstrations.

    Args:
        path: of the zarr.
        obs_spec: the policy's fields.
        action_spec: its actions.
        horizons: its horizons.
        device: where they are kept.
        real: the data sets beside it; it must have been made of one of them.
        of_any: take windows that were made of other ones, too.

    Raises:
        ConfigError: a field is a picture, the windows have other horizons or are none, or the model learned from other
            demonstrations than the policy, or from other numbers of them.
        DataError: a field is missing, or has another shape, or not all is there.
    """
    if pictures := [key for key, field in obs_spec.items() if field.is_picture]:
        raise ConfigError(
            f"data.synthetic={path} holds numbers, but the policy sees pictures: {', '.join(pictures)}; choose a task "
            f"without them"
        )
    with ReplayBuffer.open(resolve_dataset(path)) as buffer:
        provenance = plain(buffer.attrs.get("provenance") or {})
        _check_horizons(path, provenance, horizons)
        _check_whole(path, buffer)
        if not of_any:
            made_of = _origin_among(path, provenance, real)
            _check_sources(path, buffer, obs_spec, made_of.sources)
        episodes = np.arange(buffer.num_episodes)

        def read(name: str, shape: tuple[int, ...], source: str | None) -> torch.Tensor:
            return torch.from_numpy(read_obs(name, ObsField("low_dim", shape, source=source), buffer, episodes))

        To, Tp = horizons.obs_horizon, horizons.pred_horizon
        obs = {
            key: read(key, (To, *field.shape), _of_windows(field.source, buffer, To)).to(device)
            for key, field in obs_spec.items()
        }
        texts = [_of_windows(text, buffer, Tp) or text for text in action_spec.source]
        parts = [read(text, stored_shape(Source.parse(text), buffer, "action"), text) for text in texts]
        action = torch.cat([each.reshape(len(each), Tp, -1) for each in parts], dim=2).to(device)  # (S, Tp, Da)
        digest = buffer.digest()
    if action.shape[2] != action_spec.size:
        raise DataError(f"{path}: an action must have {action_spec.size} numbers, but got {action.shape[2]}")
    return Synthetic(SyntheticWindows(obs, action), digest, provenance)


def _of_windows(source: str | None, buffer: ReplayBuffer, steps: int) -> str | None:
    """Returns what a source is in windows: there the last axis of a single number is that of the steps."""
    found = None if source is None else Source.parse(source)
    if found is None or found.start is None or found.key not in buffer or buffer.shape(found.key) != (steps,):
        return source
    return str(replace(found, start=None, stop=None))


def _check_whole(path: str, buffer: ReplayBuffer) -> None:
    """Raises DataError where the drawing was interrupted, or is still going on: the data would change with it."""
    wanted = (plain(buffer.attrs.get("provenance") or {})).get("samples")
    if isinstance(wanted, int) and buffer.num_episodes < wanted:
        raise DataError(
            f"data.synthetic={path} holds {buffer.num_episodes} of {wanted} rows: they are still drawn, or that was "
            f"interrupted; go on with it by dp-augment resume=true"
        )


def _check_sources(path: str, buffer: ReplayBuffer, spec: ObsSpec, sources: Mapping[str, Source]) -> None:
    """Raises ConfigError where a field is something else here than in the real data."""
    for name, field in spec.items():
        found = named_source(name, field, buffer)
        if found.key in buffer and found != sources[name]:
            raise ConfigError(
                f"data.synthetic={path}: obs.{name} is '{sources[name]}' in the real data, but the model learned "
                f"'{found}'; fit it to '{sources[name].key}' (data.fields of dp-augment)"
            )


def _check_horizons(path: str, provenance: Mapping[str, Any], horizons: Horizons) -> None:
    """Raises ConfigError where a data set holds no windows, or others than a policy learns from."""
    told = (provenance.get("real") or {}).get("horizons")
    if not told:
        raise ConfigError(
            f"data.synthetic={path} holds no windows, which imitation needs; make it with dp-augment "
            f"augment=demonstrations, or name an agent (agent=diffusion_ql, ...) for transitions"
        )
    theirs = Horizons(**told)
    if theirs != horizons:
        raise ConfigError(
            f"data.synthetic={path} has horizons {plain(theirs)}, but the policy {plain(horizons)}; fit the model with "
            f"the policy's (horizons.pred_horizon=... of dp-augment)"
        )


def _origin_among(path: str, provenance: Mapping[str, Any], real: Sequence[RealPart]) -> RealPart:
    """Returns the data set that a model learned from.

    Raises:
        ConfigError: it is none of these: what it knows, the agent is not meant to.
    """
    otherwise = "or say data.synthetic_from=any if that is meant"
    told = (provenance.get("real") or {}).get("origin")
    if not told:
        raise ConfigError(
            f"data.synthetic={path} does not tell which transitions it was made of; make it with dp-augment, "
            f"{otherwise}"
        )
    theirs = Origin.from_plain(told)
    ours = [part.trained_on(theirs.keys) for part in real]
    if theirs in ours:
        return real[ours.index(theirs)]
    learner = "policy" if provenance["real"].get("horizons") else "agent"
    raise ConfigError(
        f"data.synthetic={path} was made of {theirs}, but the {learner} trains on {' and '.join(map(str, ours))}; fit "
        f"the model with the same dataset, data.episodes, data.ends and seed (and data.val_ratio=0 here), {otherwise}"
    )
