"""Gymnasium environments by id, and what a policy reads from them.

Any environment with `Dict` or `Box` observations and `Box` actions will do. Nothing is reshaped to make it fit.
"""

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError, EnvironmentIdError, ObservationError
from diffusion_policy.rollout.gl import choose_gl

Env = gym.Env[Any, Any]

BOX_FIELD = "observation"
"""What the observation of an environment without named fields is called in a data set."""


def make_env(env_id: str, env_kwargs: Mapping[str, Any] | None = None, *, film_width: int | None = None) -> Env:
    """Returns the environment called `env_id`.

    Args:
        env_id: "CartPole-v1", or "package:Id-v0" for ids that importing `package` registers.
        env_kwargs: arguments of the environment.
        film_width: makes the environment draw pictures, of about this width in pixels if it lets one choose
            (`render_size`, or `width` and `height`): large frames cost software GL more than everything else.

    Raises:
        EnvironmentIdError: the id is unknown (close ones are listed), a package that the environment needs is missing,
            or it refuses its arguments (its own are listed), or raises while it is made.
    """
    choose_gl()
    kwargs = dict(env_kwargs or {})
    spec = _spec(env_id)
    if film_width is not None:
        kwargs = {"render_mode": "rgb_array", **_film_size(spec, film_width), **kwargs}
    try:
        return gym.make(spec, **kwargs)
    except gym.error.DependencyNotInstalled as error:  # which says how to install it
        raise EnvironmentIdError(f"environment '{env_id}': {error}") from error
    except (TypeError, ValueError, KeyError, gym.error.Error) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in (env_kwargs or {}).items()) or "none"
        raise EnvironmentIdError(
            f"environment '{env_id}' refused its arguments ({given}): {error}; "
            f"it takes: {', '.join(_arguments(spec)) or 'none'}"
        ) from error
    except Exception as error:  # somebody's constructor
        raise EnvironmentIdError(
            f"environment '{env_id}' raised {type(error).__name__} while it was made: {error}; correct it; debug=true "
            f"shows where"
        ) from error


def env_maker(env_id: str) -> Any:
    """Returns what makes the environment, its class as a rule, without making one.

    Raises:
        EnvironmentIdError: the id is unknown.
    """
    entry = _spec(env_id).entry_point
    return gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry


def draws_frames(env_id: str) -> bool:
    """Returns whether an environment's class says that it renders frames; True where it does not say.

    Raises:
        EnvironmentIdError: the id is unknown.
    """
    metadata = getattr(env_maker(env_id), "metadata", None) or {}
    return "rgb_array" in metadata.get("render_modes", ("rgb_array",))


def check_offers(env: Env, env_id: str, obs_spec: ObsSpec) -> None:
    """Raises unless the environment offers what is wanted of its observations.

    Raises:
        ObservationError: a field is missing or has another shape; lists what there is.
    """
    space = env.observation_space
    if isinstance(space, spaces.Dict):
        missing = [key for key in obs_spec if key not in space.spaces]
        if missing:
            offered = ", ".join(f"{key} {each.shape}" for key, each in space.spaces.items())
            raise ObservationError(
                f"the policy reads {', '.join(missing)}, which {env_id} does not offer; it offers {offered}: "
                f"choose others by its env_kwargs (commands: +env.kwargs.obs_keys=[...]), or another policy"
            )
        shapes = {key: space.spaces[key].shape for key in obs_spec}
    elif len(obs_spec) == 1:
        shapes = dict.fromkeys(obs_spec, space.shape)
    else:
        raise ObservationError(
            f"{env_id} has one observation without fields ({space}), but the policy reads {', '.join(obs_spec)}; "
            f"use an environment with a Dict observation"
        )
    for key, field in obs_spec.items():
        if shapes[key] != field.shape:
            raise ObservationError(f"the policy reads {key} of shape {field.shape}, but {env_id} gives {shapes[key]}")


def check_fits(env: Env, env_id: str, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
    """Raises unless the environment offers what the policy reads and takes what it sends.

    Raises:
        ObservationError: a field is missing or has another shape; lists what there is.
        ConfigError: actions are not continuous or have another shape.
    """
    check_offers(env, env_id, obs_spec)
    if not isinstance(env.action_space, spaces.Box):
        raise ConfigError(f"the policy sends continuous actions, but {env_id} takes {env.action_space}")
    if env.action_space.shape != action_spec.shape:
        raise ConfigError(
            f"the policy sends actions of shape {action_spec.shape}, but {env_id} takes {env.action_space.shape}"
        )


def policy_observation(obs: Any, obs_spec: ObsSpec) -> dict[str, Any]:
    """Returns the fields of an environment's observation that the policy reads; `check_fits` said they exist."""
    if isinstance(obs, Mapping):
        return {key: obs[key] for key in obs_spec}
    return dict.fromkeys(obs_spec, obs)


def unknown_id(env_id: str) -> str | None:
    """Returns what is wrong with an id if its package can be imported but registers no such one; None otherwise.

    A machine that trains needs no environment: that a package is missing there, or broken, is no mistake.
    """
    module = env_id.rpartition(":")[0]
    try:
        if module:
            import_module(module)
    except Exception:  # somebody's package
        return None
    try:
        _spec(env_id)
    except EnvironmentIdError as error:
        return str(error)
    return None


def _spec(env_id: str) -> Any:
    module, _, name = env_id.rpartition(":")
    if module:
        _import(module, env_id)
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        raise EnvironmentIdError(f"unknown environment '{env_id}'; {_close_names(module, name)}") from error


def _import(module: str, env_id: str) -> None:
    try:
        import_module(module)
    except Exception as error:
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        if name is not None and (module == name or module.startswith(name + ".")):
            raise EnvironmentIdError(
                f"environment '{env_id}': no package '{module}' to import; install it, or check the part before the "
                f"colon"
            ) from error
        # the package is there and lacks something itself, or is broken
        raise EnvironmentIdError(
            f"environment '{env_id}': importing {module} raised {type(error).__name__}: {error}; correct it; "
            f"debug=true shows where"
        ) from error


def _close_names(module: str, name: str) -> str:
    known = [spec.id for spec in gym.registry.values() if not module or _defined_in(spec, module)]
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or (sorted(known)[:10] if module else [])
    prefix = f"{module}:" if module else ""
    if close:
        return "close to it: " + ", ".join(prefix + each for each in close)
    return "no known name is close to it; write package:Id-v0 if another package registers it"


def _defined_in(spec: Any, module: str) -> bool:
    entry = spec.entry_point
    home = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return home.partition(":")[0].split(".")[0] == module.split(".")[0]


def _film_size(spec: Any, width: int) -> dict[str, int]:
    names = _arguments(spec)
    if "render_size" in names:
        return {"render_size": width}
    return {"width": width, "height": width} if {"width", "height"} <= set(names) else {}


def _arguments(spec: Any) -> list[str]:
    """Returns the names of an environment's arguments, none where they cannot be told."""
    entry = spec.entry_point
    try:
        creator = gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        return list(inspect.signature(creator).parameters)
    except (TypeError, ValueError, ImportError, AttributeError):
        return []
