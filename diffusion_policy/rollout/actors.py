"""Who acts in an environment while demonstrations are collected: its scripted expert, or a policy."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.environments import Env, check_fits, policy_observation

Act = Callable[[Any, Mapping[str, Any]], Any]
"""(observation, info) -> action, both as the environment has them."""


class Actor(Protocol):
    """Acts for one episode after another; equal seeds in equal environments must give equal actions."""

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
                f"from; give a policy instead (checkpoint=policy.pt)"
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
        self.name = str(controller.path or type(controller.policy).__name__)

    def begin(self, env: Env, seed: int) -> Act:
        """Returns the policy for one episode; see `check_fits` for what it may raise."""
        check_fits(env, type(env.unwrapped).__name__, self.controller.obs_spec, self.controller.action_spec)
        self.controller.reset(seeds=[seed])

        def act(obs: Any, info: Mapping[str, Any]) -> Any:
            action = self.controller.act(policy_observation(obs, self.controller.obs_spec))
            return np.asarray(action, dtype=env.action_space.dtype)

        return act
