"""The simulated board of Push-T: the MuJoCo model, in pixels.

The model is in metres with 1 px = 1 mm and the block's frame at its centre of mass; a state here is what the human
demonstrations record: (agent_x, agent_y, block_x, block_y) in px and the angle in rad, the block's origin being the
middle of its bar's outer edge. What makes it behave like the original is said in `assets/pusht.xml`.
"""

import importlib.resources
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.gl import mujoco
from diffusion_policy_envs.pusht.geometry import CENTER_OF_MASS, Floats

__all__ = ["PIXEL", "PHYSICS_HZ", "PushTBoard", "PushTPhysics"]

PIXEL = 1e-3  # m
PHYSICS_HZ = 100  # the original's, and the timestep in the XML


class PushTBoard(Protocol):
    """A simulated board, of this physics or another."""

    def set_state(self, state: ArrayLike, agent_velocity: ArrayLike = (0.0, 0.0)) -> None:
        """Starts anew from a state (5,) and the agent's velocity (2,), px/s."""

    def step(self, target: NDArray[np.floating], num_steps: int) -> None:
        """Advances by `num_steps` / PHYSICS_HZ seconds while the agent is drawn to `target` (2,), px."""

    @property
    def state(self) -> Floats:
        """(5,): agent_x, agent_y, block_x, block_y in px, angle in [0, 2 pi)."""


class PushTPhysics:
    """Sets, steps and reads the state of the board.

    Attributes:
        model: the MuJoCo model.
        data: its state; qpos is (block com x, com y, angle, agent x, agent y) in m and rad.
    """

    def __init__(self) -> None:
        xml = importlib.resources.files("diffusion_policy_envs") / "assets" / "pusht.xml"
        self.model = mujoco.MjModel.from_xml_string(xml.read_text(encoding="utf-8"))
        self.data = mujoco.MjData(self.model)

    def set_state(self, state: ArrayLike, agent_velocity: ArrayLike = (0.0, 0.0)) -> None:
        """Starts anew from a state, with the block at rest.

        Args:
            state: (5,): agent_x, agent_y, block_x, block_y in px, angle in rad.
            agent_velocity: (2,), px/s.
        """
        agent, origin, angle = np.split(np.asarray(state, dtype=np.float64), [2, 4])
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:2] = (origin + _rotate(CENTER_OF_MASS, angle[0])) * PIXEL
        self.data.qpos[2] = angle[0]
        self.data.qpos[3:] = agent * PIXEL
        self.data.qvel[3:] = np.asarray(agent_velocity, dtype=np.float64) * PIXEL
        self.data.ctrl[:] = self.data.qpos[3:]

    def step(self, target: NDArray[np.floating], num_steps: int) -> None:
        """Advances by `num_steps` / PHYSICS_HZ seconds while the agent is drawn to `target` (2,), px."""
        self.data.ctrl[:] = np.asarray(target, dtype=np.float64) * PIXEL
        mujoco.mj_step(self.model, self.data, num_steps)

    @property
    def state(self) -> Floats:
        """(5,): agent_x, agent_y, block_x, block_y in px, angle in [0, 2 pi)."""
        angle = float(self.data.qpos[2])
        origin = self.data.qpos[:2] / PIXEL - _rotate(CENTER_OF_MASS, angle)
        return np.concatenate([self.data.qpos[3:] / PIXEL, origin, [angle % (2 * np.pi)]])

    @property
    def agent_velocity(self) -> Floats:
        """(2,), px/s."""
        return np.asarray(self.data.qvel[3:] / PIXEL)


def _rotate(point: Floats, angle: float) -> Floats:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * point[0] - sin * point[1], sin * point[0] + cos * point[1]])
