"""The mirror of a task, for twice the demonstrations: an environment that has one offers `mirror(obs, action)`."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.data.dataset import Mirror
from diffusion_policy.errors import ConfigError, DiffusionPolicyError
from diffusion_policy.rollout.environments import check_fits, make_env

_log = logging.getLogger(__name__)

MirrorChoice = bool | Literal["auto"]


def find_mirror(
    choice: MirrorChoice, env: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec
) -> Mirror | None:
    """Returns the mirror of a task's environment; None where there is none, or none is wanted.

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
        return _mirror(env, obs_spec, action_spec)
    except DiffusionPolicyError as error:
        if choice is True:
            raise ConfigError(f"data.mirror=true: {error}; set data.mirror=false") from error
        _log.info("demonstrations are not mirrored: %s", error)
        return None


def _mirror(env: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec) -> Mirror:
    if not env.get("id"):
        raise ConfigError("expected a task with an environment, but env.id is not set")
    made = make_env(str(env["id"]), env.get("kwargs") or {})
    try:
        check_fits(made, str(env["id"]), obs_spec, action_spec)
        mirror: Mirror | None = getattr(made.unwrapped, "mirror", None)
    finally:
        made.close()
    if mirror is None:
        raise ConfigError(f"environment {env['id']} has no mirror(obs, action)")
    return mirror
