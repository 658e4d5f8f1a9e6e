"""A robot's driver, as trials use it: an object of yours, made by name.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from diffusion_policy.errors import ConfigError, DiffusionPolicyError
from diffusion_policy.policies.chunk import FloatArray


class Robot(Protocol):
    """A driver. `reset`, `stop` and `close` are called where it has them: before and after each trial, at the end.

    `reset` may return the action (*Da) that would leave the robot where it is then, from which rates count; where it
    returns None nobody knows, and the first action is as planned. Without a `reset` the last action counts.
    """

    def read(self) -> Mapping[str, Any]:
        """Returns what the sensors show now, as the policy's schema says."""

    def send(self, action: FloatArray) -> None:
        """Moves the motors."""


def make_robot(name: str, settings: Mapping[str, Any]) -> Robot:
    """Returns a driver: `my_pkg.my_robot:Robot` is imported, and called with the settings.

    Raises:
        ConfigError: there is none of that name, or it has no read and send.
    """
    from importlib import import_module

    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"robot: expected a driver as my_pkg.my_robot:Robot, but got {name!r}")
    try:
        made: Robot = getattr(import_module(module), attribute)(**settings)
    except (ImportError, AttributeError, TypeError) as error:
        if isinstance(error, DiffusionPolicyError):
            raise
        raise ConfigError(f"robot={name} could not be made: {error}; is it installed or in this folder?") from error
    missing = [each for each in ("read", "send") if not callable(getattr(made, each, None))]
    if missing:
        raise ConfigError(f"robot={name} must have read() and send(action), but has no {', '.join(missing)}")
    return made
