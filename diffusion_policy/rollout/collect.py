"""Demonstrations, and data for offline RL: somebody acts, episodes go into a replay buffer."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DiffusionPolicyError, OutputExistsError
from diffusion_policy.paths import local_path
from diffusion_policy.rollout.actors import Actor, described
from diffusion_policy.rollout.attempts import Demonstrator, Keep, fill
from diffusion_policy.rollout.begun import opened
from diffusion_policy.rollout.env_facts import actions_a_second, bounds_of
from diffusion_policy.rollout.environments import Env, make_env
from diffusion_policy.rollout.parts import Amount, Ledger, Part
from diffusion_policy.rollout.recording import check_names, needs_next_obs
from diffusion_policy.settings import plain
from diffusion_policy.versions import installed_versions


@dataclass(frozen=True)
class CollectResult:
    """What stands in `out` now.

    Args:
        out: the data set; of a .zip that is not complete, the folder that collects it.
        episodes: kept.
        attempts: tried, those of earlier runs that were resumed included.
        digest: of the data set.
        keep: which episodes were kept: "success" or "all"; "auto" before the first attempt.
        parts: what each actor did.
    """

    out: Path
    episodes: int
    attempts: int
    digest: str
    keep: Keep
    parts: tuple[Part, ...]


def collect(
    env_id: str,
    actors: Actor | Demonstrator | Sequence[Actor],
    *,
    episodes: int | None = None,
    steps: int | None = None,
    seed: int,
    out: str | Path,
    env_kwargs: Mapping[str, Any] | None = None,
    keep: Keep = "success",
    next_obs: bool | Literal["auto"] = "auto",
    resume: bool = False,
    progress: bool = True,
) -> CollectResult:
    """Appends episodes until there are enough of every actor; attempt i uses seed + i for environment and actor.

    Each step holds what was seen, what was done about it, and what came of that: every observation key, `action`,
    `reward`, `terminated`, `truncated`, and with `next_obs` `next_<key>`. Whatever stops the collection, what was
    written stays valid, and with `resume` it ends with the data an undisturbed run would have given.

    Args:
        env_id: e.g. "diffusion_policy_envs:PushT-v0".
        actors: `ExpertActor()`, `PolicyActor(controller)`, `NumpyActor("agent.npz")` ... or several of them, whose
            parts follow one another; or `Teleoperation(window)`, which may end it early.
        episodes: how many to keep of each actor.
        steps: likewise, instead of `episodes`; the last episode of each is cut there.
        seed: of the first attempt.
        out: the zarr folder to make; one that ends in .zip is collected in a folder beside it and packed at the end.
        env_kwargs: arguments of the environment.
        keep: "success" drops episodes without; "all" keeps them; "auto" keeps all where the environment does not tell.
        next_obs: whether what followed each step is kept, too: without it nobody knows the outcome of an episode's last
            one. "auto": see `needs_next_obs`; of an interrupted collection, as it was begun.
        resume: goes on with an interrupted collection of the same settings.
        progress: shows a bar with ETA and the count of successes.

    Raises:
        OutputExistsError: `out` exists and `resume` is not set.
        ConfigError: the settings contradict each other or those that are resumed.
        DataError: an actor succeeds too rarely; what was achieved is kept.
    """
    amount = Amount(episodes, steps)
    if seed < 0 or keep not in get_args(Keep):
        raise ConfigError(f"expected seed >= 0 and keep of {', '.join(get_args(Keep))}, but got {seed} and {keep!r}")
    acting = list(actors) if isinstance(actors, Sequence) else [actors]
    person = _person(acting, amount)
    _check_next_obs(next_obs, person)
    target = local_path(out)
    folder = target.with_suffix("") if target.suffix == ".zip" else target
    _refuse_existing(target, folder, resume)
    env = make_env(env_id, env_kwargs, film_width=person.film_width if person else None)
    try:
        if person:
            person.check(env)
        record = _provenance(env, env_id, env_kwargs, acting, seed, keep, amount)
        record["next_obs"] = person is None and needs_next_obs(env) if next_obs == "auto" else next_obs
        check_names(env, env_id, next_obs=bool(record["next_obs"]))
        with opened(folder, record, resume, as_begun=("next_obs",) if next_obs == "auto" else ()) as buffer:
            ledger = Ledger(buffer, dict(buffer.attrs["provenance"]), [described(each) for each in acting], amount)
            with _nothing_left_of_nothing(buffer, folder):
                attempts = fill(ledger, env, acting, progress)
            complete = ledger.complete()
            where = target if complete else folder
            kept: Keep = ledger.record["keep"]
            result = CollectResult(where, buffer.num_episodes, attempts, buffer.digest(), kept, tuple(ledger.parts))
            if complete and target != folder:
                buffer.save(target)
    finally:
        env.close()
    if complete and target != folder:
        shutil.rmtree(folder)
    return result


@contextmanager
def _nothing_left_of_nothing(buffer: ReplayBuffer, folder: Path) -> Iterator[None]:
    """Removes a data set in which an error left no episode: the next command would find it in its way."""
    try:
        yield
    except DiffusionPolicyError:
        if buffer.num_episodes == 0:
            buffer.close()
            shutil.rmtree(folder)
        raise


def _person(actors: Sequence[Actor | Demonstrator], amount: Amount) -> Demonstrator | None:
    """Returns the person who acts, if it is one."""
    people = [actor for actor in actors if isinstance(actor, Demonstrator)]
    if not actors or (people and (len(actors) > 1 or amount.episodes is None)):
        raise ConfigError(
            f"expected one or more actors, or one person with episodes, but got {len(actors)} actors, {len(people)} of "
            f"them people, and {amount.unit}"
        )
    return people[0] if people else None


def _check_next_obs(next_obs: bool | Literal["auto"], person: Demonstrator | None) -> None:
    if next_obs not in (True, False, "auto"):
        raise ConfigError(f"next_obs must be auto, true or false, but got {next_obs!r}")
    if next_obs is True and person is not None:
        raise ConfigError("next_obs=true: a person's demonstrations are for imitation and hold none; leave it out")


def _provenance(
    env: Env,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    actors: Sequence[Actor | Demonstrator],
    seed: int,
    keep: Keep,
    amount: Amount,
) -> dict[str, Any]:
    return {
        "env_id": env_id,
        "kwargs": plain(dict(env_kwargs or {})),
        "control_hz": actions_a_second(env),
        "actor": " + ".join(actor.name for actor in actors),
        "keep": keep,
        "seed": seed,
        "each": amount.to_dict(),
        "seeds": [],
        "attempts": 0,
        "parts": [Part(described(actor)).to_dict() for actor in actors],
        "action_bounds": bounds_of(env.action_space),
        "renderer": getattr(env.unwrapped, "renderer", None),
        "versions": installed_versions(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _refuse_existing(target: Path, folder: Path, resume: bool) -> None:
    if target != folder and target.exists():
        raise OutputExistsError(f"{target} exists and is complete; choose another out=")
    if folder.exists() and not resume:
        raise OutputExistsError(f"{folder} exists; choose another out=, or resume=true to go on with it")
