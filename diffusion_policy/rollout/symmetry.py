"""The mirror of a task, for twice the demonstrations: an environment that has one offers `mirror(obs, action)`."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from gymnasium import spaces

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.data.mirror import Array, Mirror
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.rollout.environments import Env, check_fits, env_maker, make_env, unknown_id

logger = logging.getLogger(__name__)

MirrorChoice = bool | Literal["auto"]


def find_mirror(
    choice: MirrorChoice, env: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec
) -> Mirror | None:
    """Returns the mirror of a task's environment; None where there is none, or none is wanted.

    Warns when the environment's package is there but knows no such id: a slip of the pen, most likely. With "auto",
    an environment whose class has no mirror is not made: training needs no robot.

    Args:
        choice: True insists on one; "auto" takes one if there is one.
        env: the task's `id` and `kwargs`.
        obs_spec: the observations to mirror, which must be the environment's own.
        action_spec: likewise.

    Raises:
        ConfigError: `choice` is True and there is no mirror, or not for these observations and actions.
    """
    unknown = None if choice is True or not env.get("id") else unknown_id(str(env["id"]))
    if unknown:
        logger.warning("env.id: %s; training needs no environment and goes on without", unknown)
    if choice is False or unknown:
        return None
    try:
        return _mirror(choice, env, obs_spec, action_spec)
    except Exception as error:  # somebody's environment: whatever it raises, "auto" can do without
        if choice is True:
            raise ConfigError(
                f"data.mirror=true needs the environment's mirror(obs, action), but: {error}; install or correct the "
                f"environment, or start a run with data.mirror=false"
            ) from error
        logger.info("demonstrations are not mirrored: %s", error)
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
        _require_fields(made, env_id, obs_spec)
        check_fits(made, env_id, obs_spec, action_spec)
        _require_own_units(made, env_id)
        return _OwnMirror(made.unwrapped)
    finally:
        made.close()


class _OwnMirror:
    """An environment's mirror; whatever that raises becomes an error that names it."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __call__(self, obs: dict[str, Array], action: Array) -> tuple[Mapping[str, Array], Array]:
        try:
            image: tuple[Mapping[str, Array], Array] = self._env.mirror(obs, action)
        except Exception as error:
            raise DataError(
                f"{type(self._env).__name__}.mirror(obs, action) raised {type(error).__name__}: {error}; correct it, "
                f"or set data.mirror=false; debug=true shows where"
            ) from error
        return image


def _has_mirror(env: Any) -> bool:
    return callable(getattr(env, "mirror", None))


def _require_fields(env: Env, env_id: str, obs_spec: ObsSpec) -> None:
    """As `check_fits` does, but a demonstration may well hold fields that the environment lacks."""
    if not isinstance(env.observation_space, spaces.Dict):
        return
    offered = env.observation_space.spaces
    missing = [key for key in obs_spec if key not in offered]
    if missing:
        raise ConfigError(f"{env_id} does not offer {', '.join(missing)}, only {', '.join(offered)}")


def _require_own_units(env: Env, env_id: str) -> None:
    """The mirror belongs to the innermost environment: what it mirrors must be in that one's units."""
    for kind in ("action_space", "observation_space"):
        outer, inner = getattr(env, kind), getattr(env.unwrapped, kind)
        if outer != inner:
            raise ConfigError(
                f"wrappers of {env_id} change its {kind} from {inner} to {outer}, which its mirror misses"
            )
