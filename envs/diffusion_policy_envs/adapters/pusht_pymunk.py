"""The original Push-T (gym-pusht: pymunk physics), with the observations and rewards of ours."""

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.adapters.needs import needed
from diffusion_policy_envs.pusht.env import PushTEnv
from diffusion_policy_envs.pusht.geometry import Floats
from diffusion_policy_envs.pusht.physics import PHYSICS_HZ

__all__ = ["PymunkPhysics", "PymunkPushTEnv"]


class PymunkPhysics:
    """Sets, steps and reads the board of gym-pusht, as `PushTPhysics` does ours."""

    def __init__(self) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # which it prints while it is imported
        needed("gym_pusht", "pusht")
        module: Any = import_module("gym_pusht.envs.pusht")
        self._board = module.PushTEnv(obs_type="state", render_mode="rgb_array")
        self.set_state(np.array([256.0, 400.0, 256.0, 300.0, 0.0]))

    def set_state(self, state: ArrayLike, agent_velocity: ArrayLike = (0.0, 0.0)) -> None:
        """Starts anew from a state, with the block at rest.

        Args:
            state: (5,): agent_x, agent_y, block_x, block_y in px, angle in rad.
            agent_velocity: (2,), px/s.
        """
        agent_x, agent_y, block_x, block_y, angle = np.asarray(state, dtype=np.float64).tolist()
        self._board._setup()  # a new space: pymunk remembers contacts
        agent, block = self._board.agent, self._board.block
        agent.position = (agent_x, agent_y)
        agent.velocity = tuple(np.asarray(agent_velocity, dtype=np.float64).tolist())
        # The angle turns the block round its centre of mass, which moves its origin: it comes before the position.
        # gym-pusht's own `reset_to_state` does the opposite, as the program that recorded the demonstrations did.
        block.angle = angle
        block.position = (block_x, block_y)
        for body in (agent, block):
            self._board.space.reindex_shapes_for_body(body)

    def step(self, target: NDArray[np.floating], num_steps: int) -> None:
        """Advances by `num_steps` / 100 seconds while the agent is drawn to `target` (2,), px."""
        self._board.control_hz = PHYSICS_HZ / num_steps
        self._board.step(np.asarray(target, dtype=np.float64))

    @property
    def state(self) -> Floats:
        """(5,): agent_x, agent_y, block_x, block_y in px, angle in [0, 2 pi)."""
        agent, block = self._board.agent, self._board.block
        return np.array([*agent.position, *block.position, block.angle % (2 * np.pi)])

    @property
    def agent_velocity(self) -> Floats:
        """(2,), px/s."""
        return np.array([*self._board.agent.velocity])

    @property
    def coverage(self) -> float:
        """What gym-pusht itself measures."""
        return float(self._board._get_coverage())


class PymunkPushTEnv(PushTEnv):
    """Push a T-shaped block onto a drawn T, in the original's physics.

    ## Description
    Push-T of Chi et al. (2023) as gym-pusht has it (pymunk; LeRobot's), with the actions, observations, rewards, ends
    and pictures of `PushTEnv`, whose docstring says all the rest: a policy of task `pusht` runs in both. The same seed
    begins with the same state in both.

    ## Observation space
    As in `PushTEnv`. Pictures are drawn as there, not as gym-pusht draws them.

    ## Starting state
    Like `PushTEnv`'s; `reset(options={"state": ..., "agent_velocity": ...})` starts exactly there. gym-pusht draws
    whole px, and lets physics move the block for 10 ms first.

    ## Arguments
    Those of `PushTEnv`.

    ## Version history
    - v0: first version.
    """

    def __init__(
        self,
        obs_keys: Sequence[str] = ("keypoints", "agent_pos"),
        control_hz: int = 10,
        image_size: int | Mapping[str, int] = 96,
        render_mode: str | None = None,
        render_size: int = 512,
        renderer: str | None = None,
    ) -> None:
        super().__init__(obs_keys, control_hz, image_size, render_mode, render_size, renderer)
        self.physics = PymunkPhysics()
