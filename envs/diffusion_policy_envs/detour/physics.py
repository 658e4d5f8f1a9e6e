"""The simulated table of Detour; what it is made of is said in `assets/detour.xml`."""

import importlib.resources

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy_envs.detour.geometry import Floats
from diffusion_policy_envs.gl import mujoco

__all__ = ["PHYSICS_HZ", "DetourPhysics"]

PHYSICS_HZ = 100  # the timestep in the XML


class DetourPhysics:
    """Sets, steps and reads the state of the table.

    Attributes:
        model: the MuJoCo model.
        data: its state; qpos is the agent's x, y in m.
    """

    def __init__(self) -> None:
        xml = importlib.resources.files("diffusion_policy_envs") / "assets" / "detour.xml"
        self.model = mujoco.MjModel.from_xml_string(xml.read_text(encoding="utf-8"))
        self.data = mujoco.MjData(self.model)

    def set_state(self, state: ArrayLike) -> None:
        """Starts anew from a state (4,): agent x, y in m, vx, vy in m/s."""
        state = np.asarray(state, dtype=np.float64)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = state[:2]
        self.data.qvel[:] = state[2:]
        self.data.ctrl[:] = state[:2]
        mujoco.mj_step1(self.model, self.data)

    def aim(self, target: ArrayLike) -> None:
        """Draws the agent to `target` (2,), m, from now on."""
        self.data.ctrl[:] = target

    def step(self) -> None:
        """Advances by 1 / PHYSICS_HZ seconds."""
        # mj_step finds the contacts of the place that it leaves; these are to be the contacts of the place it reaches.
        mujoco.mj_step2(self.model, self.data)
        mujoco.mj_step1(self.model, self.data)

    @property
    def collided(self) -> bool:
        """Whether the agent touches a pillar or a wall."""
        return bool(self.data.ncon > 0)

    @property
    def state(self) -> Floats:
        """(4,): agent x, y in m, vx, vy in m/s."""
        return np.concatenate([self.data.qpos, self.data.qvel])
