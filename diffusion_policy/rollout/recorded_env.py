"""The environment that a data set was recorded in, as its provenance names it."""

import logging
from collections.abc import Mapping

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.rollout.environments import Env, make_env

_log = logging.getLogger(__name__)


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
        _log.warning("shown without the environment it was recorded in: %s", error)
        return None
