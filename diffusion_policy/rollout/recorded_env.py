"""The environment that a data set was recorded in, as its provenance names it."""

import logging
from collections.abc import Mapping
from typing import Any

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, EnvironmentIdError
from diffusion_policy.rollout.env_facts import bounds_of
from diffusion_policy.rollout.environments import Env, make_env

logger = logging.getLogger(__name__)


def find_env(buffer: ReplayBuffer, env_id: str | None) -> Env | None:
    """Returns the environment a data set was recorded in; None if it is not known, or not to be had here.

    Args:
        buffer: its provenance names it if we collected it.
        env_id: insists on this one.

    Raises:
        EnvironmentIdError: `env_id` is unknown.
    """
    if env_id is not None:
        return make_env(env_id)
    record = buffer.attrs.get("provenance")
    if not isinstance(record, Mapping) or not record.get("env_id"):
        return None
    try:
        return make_env(str(record["env_id"]), record.get("kwargs") or {})
    except Exception as error:  # somebody's environment, not asked for: images can be shown without
        logger.warning("shown without the environment it was recorded in: %s", error)
        return None


def recorded_id(buffer: ReplayBuffer, env_id: str | None) -> tuple[str, dict[str, Any]]:
    """Returns the id and the arguments of the environment that a data set was recorded in.

    Args:
        buffer: its provenance names it if we collected it, or if the importer was told.
        env_id: insists on this one, with the recorded arguments if it is the same.

    Raises:
        ConfigError: nobody names one.
    """
    record = buffer.attrs.get("provenance")
    told = record if isinstance(record, Mapping) else {}
    recorded = str(told.get("env_id") or "")
    if not (env_id or recorded):
        raise ConfigError(f"{buffer.location}: its provenance names no environment; give one with --env ID")
    kwargs = dict(told.get("kwargs") or {}) if env_id in (None, recorded) else {}
    return env_id or recorded, kwargs


def recorded_bounds(buffer: ReplayBuffer, env_id: str | None = None) -> list[list[float]] | None:
    """Returns [low, high] of the actions, Da numbers each; None where nobody knows.

    Args:
        buffer: its provenance holds them if we collected it; otherwise the environment is asked, if it can be made.
        env_id: asks this one.

    Raises:
        EnvironmentIdError: `env_id` is unknown.
    """
    record = buffer.attrs.get("provenance")
    told = record.get("action_bounds") if isinstance(record, Mapping) else None
    if told and env_id is None:
        return [list(map(float, bound)) for bound in told]
    try:
        env = make_env(*recorded_id(buffer, env_id))
    except (ConfigError, EnvironmentIdError):
        if env_id is not None:
            raise
        return None
    try:
        return bounds_of(env.action_space)
    finally:
        env.close()
