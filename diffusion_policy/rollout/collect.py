"""Demonstrations: an expert, a policy or a person acts, whole episodes go into a replay buffer.

Letters: T steps of an episode.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.actors import Actor
from diffusion_policy.rollout.environments import Env, make_env
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.recording import Recording, check_names
from diffusion_policy.settings import plain
from diffusion_policy.versions import installed_versions

Keep = Literal["success", "all"]
Attempt = tuple[dict[str, Array], bool | None]
"""An episode {key: (T, *shape)} and whether it succeeded (None where the environment does not say)."""

_PATIENCE = 20  # attempts per wanted episode before giving up


@runtime_checkable
class Demonstrator(Protocol):
    """Makes whole episodes in its own way and time, as a person at a window does.

    An `Actor` is asked for one action after another instead.
    """

    @property
    def name(self) -> str:
        """What the provenance of a data set calls it."""

    @property
    def film_width(self) -> int | None:
        """Width in px of the pictures that the environment shall draw; None for none."""

    def check(self, env: Env) -> None:
        """Raises ConfigError where it cannot act in this environment; nothing has been written yet."""

    def demonstrate(self, env: Env, seed: int, kept: int, wanted: int) -> Attempt | None:
        """Returns the episode with this seed, or None to end the collection; `kept` of `wanted` are there already."""


@dataclass(frozen=True)
class CollectResult:
    """What stands in `out` now.

    Args:
        out: the data set; of a .zip that is not complete, the folder that collects it.
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
    actor: Actor | Demonstrator,
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
        actor: `ExpertActor()`, `PolicyActor(controller)` or `Teleoperation(window)`, which may end it early.
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
    person = actor if isinstance(actor, Demonstrator) else None
    env = make_env(env_id, env_kwargs, film_width=person.film_width if person else None)
    try:
        check_names(env, env_id)
        if person:
            person.check(env)
        with _opened(folder, _provenance(env, env_id, env_kwargs, actor, seed, keep), resume) as buffer:
            attempts = _fill(buffer, env, actor, episodes, progress)
            complete = buffer.num_episodes >= episodes
            result = CollectResult(target if complete else folder, buffer.num_episodes, attempts, buffer.digest())
            if complete and target != folder:
                buffer.save(target)
    finally:
        env.close()
    if complete and target != folder:
        shutil.rmtree(folder)
    return result


def rollout(env: Env, actor: Actor, seed: int) -> Attempt:
    """Returns one episode and whether it succeeded.

    Args:
        env: it is reset with `seed`.
        actor: begins with the same seed.
        seed: of the episode.
    """
    recording = Recording(env, seed)
    act = actor.begin(env, seed)
    while not recording.ended:
        recording.step(act(recording.obs, recording.info))
    return recording.episode(), recording.success


def _fill(buffer: ReplayBuffer, env: Env, actor: Actor | Demonstrator, episodes: int, progress: bool) -> int:
    """Appends until the buffer holds `episodes`; returns the number of attempts since its beginning."""
    record = dict(buffer.attrs["provenance"])
    person = isinstance(actor, Demonstrator)  # who ends it when out of patience
    seeds = list(record["seeds"])[: buffer.num_episodes]  # a seed is noted before its episode: it may lack it
    upcoming = int(record["seed"]) if not seeds else seeds[-1] + 1
    with ProgressBar("collect", episodes, enabled=progress) as bar:
        bar.start_at(len(seeds))
        while len(seeds) < episodes:
            if not person and upcoming - record["seed"] >= _PATIENCE * episodes:
                raise DataError(
                    f"only {len(seeds)} of {upcoming - record['seed']} attempts succeeded, expected {episodes}; "
                    f"they are kept in {buffer.location}; use a better actor, or keep=all"
                )
            attempt = _attempt(env, actor, upcoming, len(seeds), episodes)
            if attempt is None:
                break
            episode, success = attempt
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


def _attempt(env: Env, actor: Actor | Demonstrator, seed: int, kept: int, wanted: int) -> Attempt | None:
    if isinstance(actor, Demonstrator):
        return actor.demonstrate(env, seed, kept, wanted)
    return rollout(env, actor, seed)


def _provenance(
    env: Env, env_id: str, env_kwargs: Mapping[str, Any] | None, actor: Actor | Demonstrator, seed: int, keep: Keep
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
