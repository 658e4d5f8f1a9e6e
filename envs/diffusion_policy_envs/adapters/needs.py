"""Packages of others that an adapter needs, and what to say where one is missing."""

from importlib import import_module
from types import ModuleType

import gymnasium as gym


def needed(module: str, extra: str) -> ModuleType:
    """Returns an imported module of another package.

    Args:
        module: e.g. "gymnasium_robotics".
        extra: which of our extras installs it.

    Raises:
        gymnasium.error.DependencyNotInstalled: it is not installed; says how to.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise gym.error.DependencyNotInstalled(
            f"{module} is not installed: pip install 'diffusion-policy[{extra}]'"
        ) from error
