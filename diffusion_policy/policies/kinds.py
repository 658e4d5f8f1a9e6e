"""The kinds of policies by name: `policy=name` in configuration, `kind` in policy.pt."""

from collections.abc import Callable
from typing import TypeVar

from diffusion_policy.policies.policy import Policy
from diffusion_policy.registry import Registry

POLICIES: Registry[type[Policy]] = Registry("policy")
P = TypeVar("P", bound=type[Policy])


def register_policy(name: str) -> Callable[[P], P]:
    """Returns a decorator that makes a kind of policy known as `policy=name`."""

    def add(cls: P) -> P:
        cls.kind = name
        POLICIES.register(name)(cls)
        return cls

    return add
