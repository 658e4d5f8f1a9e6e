"""From configuration to the parts of a run: data, policy, loop. Nothing here trains or writes."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from diffusion_policy.agents.agent import Agent
from diffusion_policy.agents.library import make_objective
from diffusion_policy.agents.objective import PolicyObjective
from diffusion_policy.config import ActionSpec, ObsSpec, action_spec_from, obs_spec_from
from diffusion_policy.data.mirror import Mirror
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.device import pick_device
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.policies.library import POLICY_SECTIONS, load_policy, make_policy
from diffusion_policy.policies.policy import Policy
from diffusion_policy.rollout.symmetry import find_mirror
from diffusion_policy.settings import build, build_part, plain, section
from diffusion_policy.training.data_config import DataConfig
from diffusion_policy.training.demonstration_checks import check_action_bounds, check_mirrored
from diffusion_policy.training.demonstrations import Demonstrations, load_demonstrations
from diffusion_policy.training.hooks import HookConfig
from diffusion_policy.training.loop import LoopConfig, TrainingLoop
from diffusion_policy.training.optim import OptimConfig
from diffusion_policy.training.ranks import Ranks
from diffusion_policy.versions import installed_versions

logger = logging.getLogger(__name__)

SECTIONS = ("env", "obs", "action", "dataset", "data", *POLICY_SECTIONS, "agent", "optim", "training", "logger")
SETTINGS = ("seed", "device", "out", "init", "plugins")


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, ready to start.

    Args:
        settings: the effective configuration, what config.yaml holds.
        data: the demonstrations.
        loop: the training loop, at step 0.
        hooks: when hooks act.
        info: provenance for policy.pt.
    """

    settings: dict[str, Any]
    data: Demonstrations
    loop: TrainingLoop
    hooks: HookConfig
    info: CheckpointInfo


@dataclass(frozen=True)
class _Plan:
    """What a configuration says of a run apart from its policy and its data."""

    seed: int
    loop: LoopConfig
    hooks: HookConfig
    optim: OptimConfig
    device: torch.device
    obs_spec: ObsSpec
    action_spec: ActionSpec


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises ConfigError where `assemble` would for the settings alone: reads no data and draws no weights."""
    plan = _plan(settings)
    build(DataConfig, section(settings, "data"), "data")
    if settings.get("init") is not None:  # brings its own networks
        return
    with suppress(RuntimeError), torch.device("meta"):  # somebody's network may compute while it is made
        policy = make_policy(_policy_sections(settings), plan.obs_spec, plan.action_spec)
        _objective(settings, policy, plan.loop, Ranks())


def assemble(settings: dict[str, Any], *, resuming: bool = False, ranks: Ranks | None = None) -> Assembly:
    """Returns the parts of the run that a configuration describes.

    Args:
        settings: plain nested values, as in config.yaml.
        resuming: weights and normalisers will come from a saved state, so `init` is not read again.
        ranks: the processes that train together.

    Raises:
        ConfigError: unknown or contradicting settings.
        MissingFileError: the dataset or the init policy is not there.
        DataError: the dataset does not fit the task.
    """
    ranks = ranks or Ranks()
    plan = _plan(settings)
    seed, device, obs_spec, action_spec = plan.seed, plan.device, plan.obs_spec, plan.action_spec
    initial = None
    if settings.get("init") is not None and not resuming:
        initial = _initial(str(settings["init"]), obs_spec, action_spec)
        obs_spec = {key: obs_spec[key] for key in initial.obs_spec}  # its order is the order of the features
        settings = {**settings, **dict.fromkeys(POLICY_SECTIONS), **initial.plain_config(), "obs": plain(obs_spec)}
    torch.manual_seed(seed)  # the one global seed: the networks' first weights are drawn from it
    policy = make_policy(_policy_sections(settings), obs_spec, action_spec)
    settings, mirror = _settled_mirror(settings, obs_spec, action_spec)
    objective, discount = _objective(settings, policy, plan.loop, ranks)
    data = load_demonstrations(
        settings, policy, seed, device, mirror, discount=discount, progress=ranks.first, sharers=ranks.size
    )
    for each in data.sets:  # one in other units must not hide among the others
        where = f"{each.name}: " if data.several else ""
        if mirror is not None:
            check_mirrored(mirror, each.train, action_spec.shape, where)
        check_action_bounds(each.train.all_actions(), action_spec, strict=discount is not None, where=where)
    if initial is not None:
        policy.load_state_dict(initial.state_dict())
        _warn_of_unreachable(policy, data.train.all_actions())
    else:
        policy.fit_normalizers(
            {key: data.train.all_obs(key) for key in policy.normalized_keys}, data.train.all_actions()
        )
        if not resuming:
            objective.load_pretrained()
    objective.model.to(device)
    info = CheckpointInfo(
        env={**plain(section(settings, "env")), "renderer": _renderer(data)},
        dataset=_told(data, mirror is not None),
        training={"grad_steps": 0, "seeds": [seed]},
        versions=installed_versions(),
    )
    policy.info = info
    loop = TrainingLoop(objective, data.batches, plan.loop, plan.optim, seed=seed, ranks=ranks, shares=data.shares)
    if data.several:  # with digests: the run goes on with these only
        settings = {**settings, "dataset": [replace(each.chosen, digest=each.digest).setting for each in data.sets]}
    # what "auto" meant here, so that a resumed run computes the same
    settings = {**settings, "training": {**section(settings, "training"), "bf16": loop.bf16}}
    return Assembly(settings, data, loop, plan.hooks, info)


def _told(data: Demonstrations, mirrored: bool) -> dict[str, Any]:
    """Returns what a policy's file says of its data; of several sets `sets` tells, and `provenance` nothing."""
    provenance = {} if data.several else data.sets[0].provenance
    said: dict[str, Any] = {"digest": data.digest, "provenance": provenance, "mirrored": mirrored}
    if data.several:
        said["sets"] = {each.name: {**told, "provenance": each.provenance} for each, told in data.told()}
    return said if data.synthetic is None else {**said, "synthetic": data.synthetic}


def _renderer(data: Demonstrations) -> Any:
    """Returns what drew the demonstrations; None where it is not told, or sets differ: then none is refused."""
    drawn = [each.provenance.get("renderer") for each in data.sets]
    if any(each != drawn[0] for each in drawn):
        logger.warning("dataset: pictures of several renderers (%s)", ", ".join(str(each) for each in drawn))
        return None
    return drawn[0]


def _plan(settings: Mapping[str, Any]) -> _Plan:
    _check_names(settings)
    training = section(settings, "training")
    return _Plan(
        seed=_seed(settings),
        loop=build_part(LoopConfig, training, "training"),
        hooks=build_part(HookConfig, training, "training"),
        optim=build(OptimConfig, section(settings, "optim"), "optim"),
        device=pick_device(str(settings.get("device", "auto"))),
        obs_spec=obs_spec_from(section(settings, "obs")),
        action_spec=action_spec_from(section(settings, "action")),
    )


def _policy_sections(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: section(settings, name) for name in POLICY_SECTIONS}


def _objective(
    settings: Mapping[str, Any], policy: Policy, loop: LoopConfig, ranks: Ranks
) -> tuple[PolicyObjective, float | None]:
    """Returns what trains a policy, and the discount if it learns from rewards."""
    objective = make_objective(section(settings, "agent"), policy)
    if not objective.trains_policy and settings.get("init") is None:
        raise ConfigError("agent.train_policy=false leaves the policy as it is: expected init=policy.pt, got no init")
    discount = objective.config.discount if isinstance(objective, Agent) else None
    if discount is not None and (ranks.size > 1 or loop.micro_batch_size is not None):
        raise ConfigError(
            "agent= computes each batch as a whole, on one process: its loss looks at all of it; start it without "
            "torchrun and with training.micro_batch_size=null"
        )
    return objective, discount


def _settled_mirror(
    settings: dict[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec
) -> tuple[dict[str, Any], Mirror | None]:
    """Returns the settings with what "auto" meant here, and the mirror, so that a resumed run trains on the same."""
    chosen = section(settings, "data")
    choice = build(DataConfig, chosen, "data").mirror
    mirror = find_mirror(choice, section(settings, "env"), obs_spec, action_spec)
    return {**settings, "data": {**chosen, "mirror": mirror is not None}}, mirror


def _initial(path: str, obs_spec: ObsSpec, action_spec: ActionSpec) -> Policy:
    """Returns the policy to fine-tune, after checking that it sees and does what the task says."""
    policy = load_policy(path)
    wanted = {key: (field.type, field.shape) for key, field in obs_spec.items()}
    known = {key: (field.type, field.shape) for key, field in policy.obs_spec.items()}
    if wanted != known:
        raise ConfigError(f"init={path} was trained on observations {known}, but the task has {wanted}")
    acts, should = ((spec.shape, spec.kind) for spec in (policy.action_spec, action_spec))
    if acts != should:
        raise ConfigError(f"init={path} has actions {acts}, but the task has {should}")
    logger.info("init=%s: its networks, horizons, process and normaliser are kept", path)
    policy.selector = None  # of other rewards
    return policy


def _warn_of_unreachable(policy: Policy, action: torch.Tensor) -> None:
    """A kept normaliser may put new actions where clipped samples never get to."""
    reach = policy.reach
    if reach is None:
        return
    beyond = policy.action_normalizer.normalize(action.cpu()).abs() > reach + 1e-4
    if beyond.any():
        logger.warning(
            "init: %.1f %% of the new actions lie beyond those that the policy's normaliser knows, where clip_sample "
            "keeps it from going; train anew, or record actions within the old limits",
            100 * beyond.any(dim=1).float().mean().item(),
        )


def _seed(settings: Mapping[str, Any]) -> int:
    seed = settings.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number, 0 or more, but got {seed!r}")
    return seed


def _check_names(settings: Mapping[str, Any]) -> None:
    unknown = sorted(set(settings) - set(SECTIONS) - set(SETTINGS))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(SECTIONS + SETTINGS)}")
    known = [field.name for cls in (LoopConfig, HookConfig) for field in fields(cls)]
    unknown = sorted(set(section(settings, "training")) - set(known))
    if unknown:
        raise ConfigError(f"training: unknown setting {', '.join(unknown)}, known: {', '.join(known)}")
