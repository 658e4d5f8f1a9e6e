"""The mirror of a task, for twice the demonstrations: an environment that has one offers `mirror(obs, action)`."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.data.mirror import Mirror
from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.environments import Env, check_fits, env_maker, make_env

_log = logging.getLogger(__name__)

MirrorChoice = bool | Literal["auto"]


def find_mirror(
    choice: MirrorChoice, env: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec
) -> Mirror | None:
    """Returns the mirror of a task's environment; None where there is none, or none is wanted.

    With "auto", an environment whose class has none is not made: training needs no robot.

    Args:
        choice: True insists on one; "auto" takes one if there is one.
        env: the task's `id` and `kwargs`.
        obs_spec: the observations to mirror, which must be the environment's own.
        action_spec: likewise.

    Raises:
        ConfigError: `choice` is True and there is no mirror, or not for these observations and actions.
    """
    if choice is False:
        return None
    try:
        return _mirror(choice, env, obs_spec, action_spec)
    except Exception as error:  # somebody's environment: whatever it raises, "auto" can do without
        if choice is True:
            raise ConfigError(
                f"data.mirror=true needs the environment's mirror(obs, action), but: {error}; install or correct the "
                f"environment, or start a run with data.mirror=false"
            ) from error
        _log.info("demonstrations are not mirrored: %s", error)
        return None


def _mirror(choice: MirrorChoice, env: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec) -> Mirror:
    if not env.get("id"):
        raise ConfigError("the task names no environment (env.id)")
    env_id = str(env["id"])
    if choice == "auto" and not _has_mirror(env_maker(env_id)):
        raise ConfigError(f"{env_id} has no mirror(obs, action)")
    made = make_env(env_id, env.get("kwargs") or {})
    try:
        if not _has_mirror(made.unwrapped):
            raise ConfigError(f"{env_id} has no mirror(obs, action)")
        check_fits(made, env_id, obs_spec, action_spec)
        _require_own_units(made, env_id)
        mirror: Mirror = made.unwrapped.mirror  # type: ignore[attr-defined]
        return mirror
    finally:
        made.close()


def _has_mirror(env: Any) -> bool:
    return callable(getattr(env, "mirror", None))


def _require_own_units(env: Env, env_id: str) -> None:
    """The mirror belongs to the innermost environment: what it mirrors must be in that one's units."""
    for kind in ("action_space", "observation_space"):
        outer, inner = getattr(env, kind), getattr(env.unwrapped, kind)
        if outer != inner:
            raise ConfigError(
                f"wrappers of {env_id} change its {kind} from {inner} to {outer}, which its mirror misses"
            )
