"""Who acts in an environment while data are collected: its scripted expert, a policy, chance."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from gymnasium import spaces

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.environments import Env, check_fits, policy_observation
from diffusion_policy.rollout.provenance import file_sha256
from diffusion_policy.settings import plain

Act = Callable[[Any, Mapping[str, Any]], Any]
"""(observation, info) -> action, both as the environment has them."""


class Actor(Protocol):
    """Acts for one episode after another; equal seeds in equal environments must give equal actions.

    What else a data set's provenance should say of it (plain values) stands in an attribute `details`, if it has one.
    """

    @property
    def name(self) -> str:
        """What the provenance of a data set calls it."""

    def begin(self, env: Env, seed: int) -> Act:
        """Returns what acts in the episode with this seed."""


class ExpertActor:
    """The expert that an environment brings along as `make_expert(seed)`."""

    name = "expert"

    def begin(self, env: Env, seed: int) -> Act:
        """Returns the expert for one episode.

        Raises:
            ConfigError: the environment has none.
        """
        make = getattr(env.unwrapped, "make_expert", None)
        if make is None:
            raise ConfigError(
                f"{type(env.unwrapped).__name__} has no make_expert(seed), so there is no scripted expert to collect "
                f"from; give a policy instead (checkpoint=policy.pt), or an agent (actor=agent.npz, actor=random)"
            )
        expert: Act = make(seed)
        return expert


class PolicyActor:
    """A policy, through its controller.

    Args:
        controller: reset at each episode, with its seed.
    """

    def __init__(self, controller: RecedingHorizonController) -> None:
        self.controller = controller
        path = controller.path
        # of its run's folder, not of this machine; the path may hold another policy tomorrow, so its sum is told
        self.name = type(controller.policy).__name__ if path is None else f"{path.resolve().parent.name}/{path.name}"
        self.details = {} if path is None else {"sha256": file_sha256(path)}

    def begin(self, env: Env, seed: int) -> Act:
        """Returns the policy for one episode; see `check_fits` for what it may raise."""
        check_fits(env, type(env.unwrapped).__name__, self.controller.obs_spec, self.controller.action_spec)
        self.controller.reset(seeds=[seed])

        def act(obs: Any, info: Mapping[str, Any]) -> Any:
            action = self.controller.act(policy_observation(obs, self.controller.obs_spec))
            return np.asarray(action, dtype=env.action_space.dtype)

        return act


class RandomActor:
    """Uniform actions within the bounds of the action space."""

    name = "random"

    def begin(self, env: Env, seed: int) -> Act:
        """Returns chance for one episode.

        Raises:
            ConfigError: the actions are not continuous, or have no bounds.
        """
        space = _bounded(env, "actor=random")
        generator = noise_generator(seed, "random")
        return lambda obs, info: generator.uniform(space.low, space.high).astype(space.dtype)


class NoisyActor:
    """Somebody's actions with Gaussian noise, clipped to the action space.

    Args:
        actor: whose.
        noise: standard deviation, in units of the action.
    """

    def __init__(self, actor: Actor, noise: float) -> None:
        if not 0 <= noise < np.inf:
            raise ConfigError(f"noise must be at least 0, in units of the action, but got {noise}")
        self._actor, self._noise = actor, noise
        self.name = actor.name
        self.details = {**getattr(actor, "details", {}), "noise": noise}

    def begin(self, env: Env, seed: int) -> Act:
        """Returns the actor for one episode; raises what it raises.

        Raises:
            ConfigError: the actions are not continuous, or have no bounds.
        """
        space = _bounded(env, f"noise={self._noise:g}")
        generator = noise_generator(seed, "noise")
        act = self._actor.begin(env, seed)

        def noisy(obs: Any, info: Mapping[str, Any]) -> Any:
            action = act(obs, info) + self._noise * generator.standard_normal(space.shape)
            return np.clip(action, space.low, space.high).astype(space.dtype)

        return noisy


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def described(actor: _Named) -> dict[str, Any]:
    """Returns what a provenance says of an actor."""
    return {"actor": actor.name, **plain(getattr(actor, "details", {}))}


def noise_generator(seed: int, purpose: Literal["random", "noise", "sample"]) -> np.random.Generator:
    """Returns the chance of one purpose in one episode.

    Each has a stream of its own: the environment draws its start from the seed alone, and noise that repeats those
    draws would be correlated with it.
    """
    return np.random.default_rng([seed, 1 + ("random", "noise", "sample").index(purpose)])


def _bounded(env: Env, wish: str) -> spaces.Box:
    space = env.action_space
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        raise ConfigError(
            f"{wish} needs continuous actions with bounds, but {type(env.unwrapped).__name__} takes {space}; choose "
            f"another actor, or bound the actions with a gymnasium wrapper"
        )
    return space
