"""Attempts at episodes: somebody acts, again and again, until there are enough of those that are kept.

Letters: T steps of an episode.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, cast, runtime_checkable

from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.actors import Actor
from diffusion_policy.rollout.environments import Env
from diffusion_policy.rollout.parts import Ledger, Part
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.recording import Recording

Keep = Literal["success", "all", "auto"]
Attempt = tuple[dict[str, Array], bool | None]
"""An episode {key: (T, *shape)} and whether it succeeded (None where the environment does not say)."""


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


def rollout(env: Env, actor: Actor, seed: int, *, next_obs: bool = False) -> Attempt:
    """Returns one episode and whether it succeeded.

    Args:
        env: it is reset with `seed`.
        actor: begins with the same seed.
        seed: of the episode.
        next_obs: whether it holds what followed each step.
    """
    recording = Recording(env, seed)
    act = actor.begin(env, seed)
    while not recording.ended:
        recording.step(act(recording.obs, recording.info))
    return recording.episode(next_obs=next_obs), recording.success


def fill(ledger: Ledger, env: Env, actors: Sequence[Actor | Demonstrator], progress: bool) -> int:
    """Appends until all parts are complete, or a person wants to stop.

    Args:
        ledger: keeps what is worth it.
        env: in which they act, one after the other.
        actors: of each part.
        progress: shows a bar with ETA and the count of successes.

    Returns:
        The number of attempts since the beginning of the collection.

    Raises:
        DataError: an actor succeeds too rarely.
        ConfigError: only successes are wanted, but the environment tells of none.
    """
    amount = ledger.amount
    with ProgressBar("collect", amount.total * len(actors), enabled=progress) as bar:
        bar.start_at(sum(map(ledger.done, ledger.parts)))
        upcoming = ledger.upcoming
        try:
            for part, actor in zip(ledger.parts, actors, strict=True):
                upcoming = _fill_part(ledger, part, env, actor, bar)
                if ledger.done(part) < amount.total:  # the person wants to stop
                    break
                ledger.finish(part)
        finally:
            ledger.finish_begun()
    return upcoming - int(ledger.record["seed"])


def _fill_part(ledger: Ledger, part: Part, env: Env, actor: Actor | Demonstrator, bar: ProgressBar) -> int:
    """Appends until the part is complete; returns the seed of the next attempt."""
    record, amount = ledger.record, ledger.amount
    upcoming = ledger.upcoming
    while ledger.done(part) < amount.total:
        if part.first_seed is None:
            part.first_seed = upcoming
        tried = upcoming - part.first_seed
        if not isinstance(actor, Demonstrator) and tried >= amount.attempts(part.episodes):
            wanted = f"{amount.total}{' steps' if amount.episodes is None else ''}"
            raise DataError(
                f"only {part.episodes} of {tried} attempts succeeded, expected {wanted}; they are kept in "
                f"{ledger.buffer.location}; use a better actor, or keep=all"
            )
        if isinstance(actor, Demonstrator):
            attempt = actor.demonstrate(env, upcoming, part.episodes, amount.total)
        else:
            attempt = rollout(env, actor, upcoming, next_obs=bool(record.get("next_obs")))
        if attempt is None:
            break
        episode, success = attempt
        record["keep"] = _decided(record, success)
        if record["keep"] == "all" or success:
            ledger.keep(part, upcoming, episode)
        upcoming += 1
        kept, tried = len(ledger.seeds), upcoming - record["seed"]
        bar.update(sum(map(ledger.done, ledger.parts)), f"kept {kept} of {tried} ({kept / tried:.0%})")
    return upcoming


def _decided(record: Mapping[str, Any], success: bool | None) -> Keep:
    """Returns which episodes to keep, after an attempt; what was to be decided by the first is decided then."""
    if record["keep"] == "auto":
        return "all" if success is None else "success"
    if record["keep"] == "success" and success is None:
        raise ConfigError(f"{record['env_id']} does not say is_success or success in its info; use keep=all")
    return cast("Keep", record["keep"])
