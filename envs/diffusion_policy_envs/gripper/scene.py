"""The simulated table: a gripper, cubes, and places (pads or blocks) that stand still.

Lengths are metres, z = 0 is the table's top. `assets/gripper.xml` says how the gripper moves and holds. Letters: C
cubes, P places.
"""

import importlib.resources
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.gl import mujoco

__all__ = ["CUBE_HALF", "FINGER_TRAVEL", "PHYSICS_HZ", "GripperScene"]

Floats = NDArray[np.float64]

PHYSICS_HZ = 200  # the timestep in the XML
FINGER_TRAVEL = 0.045  # m: of each finger, from closed to open
CUBE_HALF = 0.025  # m: half an edge
_GRIPPER_QPOS, _CUBE_QPOS, _CUBE_QVEL = 5, 7, 6  # numbers of x, y, z and two fingers; of a free body
_REST_SPEED, _REST_TURN = 0.03, 0.5  # m/s, rad/s: slower than this is at rest


class GripperScene:
    """Sets, steps and reads the state of the table.

    The state is (n,), float32: the positions (x, y, z, left finger, right finger in m; of each cube x, y, z in m and a
    quaternion), the velocities (5 in m/s; of each cube 3 in m/s and 3 in rad/s), and x, y of each place in m. It is
    rounded to float32 after every step of the control, so that a recorded one is exact and can be gone on from.

    Args:
        xml: a file of `assets/`.
        cubes: names of the free bodies, in the order of the XML.
        places: names of the mocap bodies, in the order of the XML.

    Attributes:
        model: the MuJoCo model.
        data: its state.
    """

    def __init__(self, xml: str, cubes: Sequence[str], places: Sequence[str]) -> None:
        assets = importlib.resources.files("diffusion_policy_envs") / "assets"
        self.model = mujoco.MjModel.from_xml_string(
            (assets / xml).read_text(encoding="utf-8"), {"gripper.xml": (assets / "gripper.xml").read_bytes()}
        )
        self.data = mujoco.MjData(self.model)
        self.cubes = tuple(cubes)
        self.places = tuple(places)
        self._cube_geoms = [self._geom(name) for name in cubes]
        self._fingers = (self._geom("left_finger"), self._geom("right_finger"))
        self._gripper = (*self._fingers, self._geom("palm"))

    @property
    def state_size(self) -> int:
        """Numbers of a state."""
        return int(self.model.nq + self.model.nv + 2 * self.model.nmocap)

    @property
    def state(self) -> NDArray[np.float32]:
        """(n,); see the class."""
        parts = [self.data.qpos, self.data.qvel, self.data.mocap_pos[:, :2].ravel()]
        return np.concatenate(parts).astype(np.float32)

    def set_state(self, state: ArrayLike) -> None:
        """Starts anew from a state (n,)."""
        qpos, qvel, places = np.split(np.asarray(state, np.float32), [self.model.nq, self.model.nq + self.model.nv])
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = qpos
        self.data.qvel[:] = qvel
        self.data.mocap_pos[:, :2] = places.reshape(-1, 2)
        mujoco.mj_fwdPosition(self.model, self.data)

    def step(self, action: NDArray[np.floating[Any]], num_steps: int) -> None:
        """Advances by `num_steps` / PHYSICS_HZ seconds.

        Args:
            action: (4,), targets of x, y, z in m and of the opening in [0, 1].
            num_steps: of the physics.
        """
        self.data.ctrl[:3] = action[:3]
        self.data.ctrl[3:] = FINGER_TRAVEL * action[3]
        mujoco.mj_step(self.model, self.data, num_steps)
        self.data.qpos[:] = self.data.qpos.astype(np.float32)
        self.data.qvel[:] = self.data.qvel.astype(np.float32)
        mujoco.mj_fwdPosition(self.model, self.data)  # contacts of this state, not of the one before it

    @property
    def gripper(self) -> Floats:
        """(4,): x, y, z in m, of the middle between the pads, and the opening: 0 closed, 1 open."""
        qpos = self.data.qpos
        return np.array([*qpos[:3], (qpos[3] + qpos[4]) / (2 * FINGER_TRAVEL)])

    def place(self, index: int) -> Floats:
        """Returns x, y (2,) of a place, m."""
        return np.array(self.data.mocap_pos[index, :2])

    def cube_position(self, index: int) -> Floats:
        """Returns x, y, z (3,) of a cube's centre, m."""
        start = _GRIPPER_QPOS + _CUBE_QPOS * index
        return np.array(self.data.qpos[start : start + 3])

    def cube(self, index: int) -> Floats:
        """Returns a cube's pose (5,): x, y, z in m, sin and cos of 4 yaw, which do not tell one face from another."""
        axes = self.data.geom_xmat[self._cube_geoms[index]].reshape(3, 3)  # columns: the cube's axes
        upright = int(np.argmax(np.abs(axes[2])))
        level = axes[:, (upright + 1) % 3]
        turn = 4.0 * np.arctan2(level[1], level[0])
        return np.array([*self.cube_position(index), np.sin(turn), np.cos(turn)])

    def rests(self, index: int) -> bool:
        """Returns whether a cube hardly moves."""
        start = _GRIPPER_QPOS + _CUBE_QVEL * index
        velocity = self.data.qvel[start : start + _CUBE_QVEL]
        return bool(velocity[:3] @ velocity[:3] < _REST_SPEED**2 and velocity[3:] @ velocity[3:] < _REST_TURN**2)

    def touched(self, index: int) -> bool:
        """Returns whether any part of the gripper touches a cube."""
        return bool(self._touching(index).intersection(self._gripper))

    def held(self, index: int) -> bool:
        """Returns whether both fingers touch a cube."""
        return self._touching(index).issuperset(self._fingers)

    def _touching(self, index: int) -> set[int]:
        """Returns the geoms that touch a cube."""
        cube = self._cube_geoms[index]
        pairs = self.data.contact.geom[: self.data.ncon].tolist()
        return {first if second == cube else second for first, second in pairs if cube in (first, second)}

    def _geom(self, name: str) -> int:
        return int(self.model.geom(name).id)
