"""Demonstrations: an expert or a policy acts, whole episodes go into a replay buffer.

Letters: T steps of an episode.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.actors import Actor
from diffusion_policy.rollout.environments import BOX_FIELD, Env, make_env, success_of
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.settings import plain
from diffusion_policy.versions import installed_versions

Keep = Literal["success", "all"]

_OWN_KEYS = ("action", "reward", "terminated", "truncated")
_PATIENCE = 20  # attempts per wanted episode before giving up


@dataclass(frozen=True)
class CollectResult:
    """What stands in `out` now.

    Args:
        out: the data set.
        episodes: kept.
        attempts: tried, those of earlier runs that were resumed included.
        digest: of the data set.
    """

    out: Path
    episodes: int
    attempts: int
    digest: str


def collect(
    env_id: str,
    actor: Actor,
    *,
    episodes: int,
    seed: int,
    out: str | Path,
    env_kwargs: Mapping[str, Any] | None = None,
    keep: Keep = "success",
    resume: bool = False,
    progress: bool = True,
) -> CollectResult:
    """Appends episodes until `episodes` are kept; attempt i uses seed + i for environment and actor.

    Each step holds what was seen, what was done about it, and what came of that: every observation key, `action`,
    `reward`, `terminated`, `truncated`. Whatever stops the collection, what was written stays valid, and with
    `resume` it ends with the data an undisturbed run would have given.

    Args:
        env_id: e.g. "diffusion_policy_envs:PushT-v0".
        actor: `ExpertActor()` or `PolicyActor(controller)`.
        episodes: how many to keep.
        seed: of the first attempt.
        out: the zarr folder to make; one that ends in .zip is collected in a folder beside it and packed at the end.
        env_kwargs: arguments of the environment.
        keep: "success" drops episodes without; "all" keeps them.
        resume: goes on with an interrupted collection of the same settings.
        progress: shows a bar with ETA and the count of successes.

    Raises:
        OutputExistsError: `out` exists and `resume` is not set.
        ConfigError: the settings contradict each other or those that are resumed.
        DataError: the actor succeeds too rarely; what it achieved is kept.
    """
    if episodes < 1 or seed < 0 or keep not in ("success", "all"):
        raise ConfigError(
            f"expected episodes >= 1, seed >= 0 and keep of success or all, but got {episodes}, {seed} and {keep!r}"
        )
    target = Path(out)
    folder = target.with_suffix("") if target.suffix == ".zip" else target
    _refuse_existing(target, folder, resume)
    env = make_env(env_id, env_kwargs)
    try:
        _check_names(env, env_id)
        with _opened(folder, _provenance(env, env_id, env_kwargs, actor, seed, keep), resume) as buffer:
            attempts = _fill(buffer, env, actor, episodes, progress)
            result = CollectResult(target, buffer.num_episodes, attempts, buffer.digest())
            if target != folder:
                buffer.save(target)
    finally:
        env.close()
    if target != folder:
        shutil.rmtree(folder)
    return result


def rollout(env: Env, actor: Actor, seed: int) -> tuple[dict[str, Array], bool | None]:
    """Returns one episode {key: (T, *shape)} and whether it succeeded (None where the environment does not say).

    Numbers are kept as the environment gives them, but float64 becomes float32.

    Args:
        env: it is reset with `seed`.
        actor: begins with the same seed.
        seed: of the episode.
    """
    obs, info = env.reset(seed=seed)
    act = actor.begin(env, seed)
    steps: list[dict[str, Any]] = []
    success: bool | None = None
    ended = False
    while not ended:
        action = act(obs, info)
        seen = dict(obs) if isinstance(obs, Mapping) else {BOX_FIELD: obs}
        seen = {key: np.array(value) for key, value in seen.items()}  # an environment may reuse its arrays
        obs, reward, terminated, truncated, info = env.step(action)
        steps.append({**seen, "action": np.array(action), "reward": np.float32(reward)})
        steps[-1] |= {"terminated": np.bool_(terminated), "truncated": np.bool_(truncated)}
        said = success_of(info)
        success = success if said is None else said or bool(success)
        ended = bool(terminated or truncated)
    episode = {key: np.stack([step[key] for step in steps]) for key in steps[0]}  # (T, *shape)
    return {key: v.astype(np.float32) if v.dtype == np.float64 else v for key, v in episode.items()}, success


def _fill(buffer: ReplayBuffer, env: Env, actor: Actor, episodes: int, progress: bool) -> int:
    """Appends until the buffer holds `episodes`; returns the number of attempts since its beginning."""
    record = dict(buffer.attrs["provenance"])
    seeds = list(record["seeds"])[: buffer.num_episodes]  # a seed is noted before its episode: it may lack it
    upcoming = int(record["seed"]) if not seeds else seeds[-1] + 1
    with ProgressBar("collect", episodes, enabled=progress) as bar:
        bar.start_at(len(seeds))
        while len(seeds) < episodes:
            if upcoming - record["seed"] >= _PATIENCE * episodes:
                raise DataError(
                    f"only {len(seeds)} of {upcoming - record['seed']} attempts succeeded, expected {episodes}; "
                    f"they are kept in {buffer.location}; use a better actor, or keep=all"
                )
            episode, success = rollout(env, actor, upcoming)
            if record["keep"] == "success" and success is None:
                raise ConfigError(f"{record['env_id']} does not say is_success or success in its info; use keep=all")
            if record["keep"] == "all" or success:
                seeds.append(upcoming)
                record |= {"seeds": seeds, "attempts": upcoming - record["seed"] + 1}
                buffer.update_attrs({"provenance": record})
                buffer.add_episode(episode)
            upcoming += 1
            tried = upcoming - record["seed"]
            bar.update(len(seeds), f"kept {len(seeds)} of {tried} ({len(seeds) / tried:.0%})")
    return upcoming - int(record["seed"])


def _provenance(
    env: Env, env_id: str, env_kwargs: Mapping[str, Any] | None, actor: Actor, seed: int, keep: Keep
) -> dict[str, Any]:
    return {
        "env_id": env_id,
        "kwargs": plain(dict(env_kwargs or {})),
        "actor": actor.name,
        "keep": keep,
        "seed": seed,
        "seeds": [],
        "attempts": 0,
        "renderer": getattr(env.unwrapped, "renderer", None),
        "versions": installed_versions(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _check_names(env: Env, env_id: str) -> None:
    taken = set(_OWN_KEYS) & set(getattr(env.observation_space, "spaces", {}))
    if taken:
        raise ConfigError(
            f"{env_id} observes {', '.join(sorted(taken))}, but a data set needs these names for what was done; "
            f"rename them with a gymnasium wrapper"
        )


def _refuse_existing(target: Path, folder: Path, resume: bool) -> None:
    if target != folder and target.exists():
        raise OutputExistsError(f"{target} exists and is complete; choose another out=")
    if folder.exists() and not resume:
        raise OutputExistsError(f"{folder} exists; choose another out=, or resume=true to go on with it")


def _opened(folder: Path, provenance: dict[str, Any], resume: bool) -> ReplayBuffer:
    """Returns a new buffer, or the interrupted one after checking that its settings are the same."""
    if not (resume and folder.exists()):
        folder.parent.mkdir(parents=True, exist_ok=True)
        return ReplayBuffer.create(folder, attrs={"provenance": provenance})
    with ReplayBuffer.open(folder) as begun:
        before = begun.attrs.get("provenance")
    if not isinstance(before, Mapping) or "seeds" not in before:
        raise ConfigError(f"{folder} was not made by collecting, so it cannot be resumed; choose another out=")
    for name in ("env_id", "kwargs", "actor", "keep", "seed", "renderer"):
        if before.get(name) != provenance[name]:
            raise ConfigError(
                f"{folder} was begun with {name} {before.get(name)!r}, but got {provenance[name]!r}; resume with the "
                f"same settings, or choose another out="
            )
    return ReplayBuffer.open(folder, mode="a")
