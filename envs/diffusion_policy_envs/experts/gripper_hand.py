"""How a scripted hand moves the gripper: what it does next follows from where things are, not from a clock.

So it needs no memory to be imitated: gripper, opening and cubes tell a policy which movement comes next, and a grasp
that missed or a cube that slipped is tried again. Lengths are metres.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.gripper.env import ACTION_HIGH, ACTION_LOW
from diffusion_policy_envs.gripper.scene import CUBE_HALF, FINGER_TRAVEL, Floats, GripperScene

__all__ = ["Clearances", "GripperHand", "expert_rng"]

_SPEED, _ACCELERATION = 0.5, 4.0  # m/s, m/s^2: of the target, which the gripper follows 67 ms behind
_BRAKING = 7.0  # 1/s: speed allowed per metre that is left
_ALIGNED, _BESIDE = 0.008, 0.013  # m: this near the cube's middle the fingers may go down, this far only above it
_LEVEL = 0.005  # m: and how far from their height they may close
_BETWEEN = 0.012  # m: a cube this near may be closed upon further, once the fingers have begun
_FIRM = (CUBE_HALF + 0.0012) / FINGER_TRAVEL  # opening at which a cube lies flat between the pads
_BEGUN = 0.92  # opening below which the fingers have begun to close
_SEATED = 0.003  # m: how near its support a cube is let go
_AT_PLACE = 0.012  # m: and how near its place
_AWAY = 0.17  # m: how far above a cube the hand withdraws
_GLIDE = 0.035  # m: within this of its place the cube is lowered while it still moves there


@dataclass(frozen=True)
class Clearances:
    """How high the hand goes, of the middle between the pads.

    Args:
        free: from here on nothing stands in the way of the open fingers.
        lift: how far a cube is lifted before it is moved aside.
        carry: how far above its place a cube is carried.
    """

    free: float
    lift: float
    carry: float


def expert_rng(seed: int) -> np.random.Generator:
    """Returns an expert's generator: not that of an environment reset with the same seed, whose draws it would echo."""
    return np.random.default_rng([seed, 1])


class GripperHand:
    """Takes a cube to a place, one action per call.

    It is a little unsure: it first aims beside the cube and beside the place, and corrects that on the way down.

    Args:
        scene: the simulated table, which it only reads.
        rng: draws how unsure it is.
        control_hz: calls per simulated second.
        clearances: of the task.
    """

    def __init__(self, scene: GripperScene, rng: np.random.Generator, control_hz: int, clearances: Clearances) -> None:
        self._scene = scene
        self._rng = rng
        self._dt = 1.0 / control_hz
        self._heights = clearances
        self._target: Floats = scene.gripper[:3]
        self._velocity = np.zeros(3)
        self.hesitate()

    def hesitate(self) -> None:
        """Draws anew how unsure the hand is; for the next cube."""
        rng = self._rng
        self._miss = np.clip(rng.normal(0.0, 0.007, 2), -0.015, 0.015)  # beside the cube, seen from above
        self._slip = np.clip(rng.normal(0.0, 0.002, 2), -0.004, 0.004)  # beside it when it is grasped
        self._drift = np.clip(rng.normal(0.0, 0.007, 2), -0.015, 0.015)  # beside the place, seen from above
        self._rest = np.clip(rng.normal(0.0, 0.002, 2), -0.004, 0.004)  # beside it when the cube is set down
        self._depth = rng.uniform(-0.003, 0.003)  # of the grasp
        self._travel = rng.uniform(0.01, 0.035)  # above the free height on the way to the cube
        self._higher = rng.uniform(-0.01, 0.02)  # of the carrying height

    def take(self, cube: int, place: Floats) -> NDArray[np.float32]:
        """Returns the action (4,) that comes next to bring a cube to a place.

        Args:
            cube: which one.
            place: (3,), where its centre shall be.
        """
        gap = place - self._scene.cube_position(cube)
        opening = self._scene.gripper[3]
        if self._scene.touched(cube) and np.linalg.norm(gap[:2]) < _AT_PLACE and gap[2] > -_SEATED:
            return self._action(self._target, 1.0)  # it is there: let go
        if self._scene.held(cube) and opening < _FIRM:
            return self._carry(cube, place)
        return self._grasp(cube)

    def retreat(self, cube: int) -> NDArray[np.float32]:
        """Returns the next action upwards from a cube that was let go."""
        over = self._scene.cube_position(cube)[2] + _AWAY
        return self._action(np.array([*self._target[:2], over]), 1.0)

    def _grasp(self, cube: int) -> NDArray[np.float32]:
        """Returns the next action towards a cube that is not held: over it, down to it, close."""
        x, y, z, opening = self._scene.gripper
        center = self._scene.cube_position(cube)
        free = self._heights.free
        level = max(center[2] + self._depth, ACTION_LOW[2])
        off = float(np.abs(center[:2] - [x, y]).max())
        begun = opening < _BEGUN
        if off < (_BETWEEN if begun else _ALIGNED) and abs(z - level) < (2 * _LEVEL if begun else _LEVEL):
            return self._action(np.array([*self._target[:2], level]), 0.0)
        aim = center[:2] + self._slip + self._miss * np.clip((z - free + 0.005) / 0.035, 0.0, 1.0)
        if off > _BESIDE and z < free - 0.01:  # up first: it stands beside something
            return self._action(np.array([*self._target[:2], free + 0.01]), 1.0)
        # Over the cube by way of a funnel: high when far, on the fingers' level when above it.
        down = np.interp(off, [_ALIGNED, _BESIDE, 0.08], [level, free, free + self._travel])
        return self._action(np.array([*aim, down]), 1.0)

    def _carry(self, cube: int, place: Floats) -> NDArray[np.float32]:
        """Returns the next action with a cube between the fingers: up, over to its place, down."""
        hand = self._scene.gripper[:3]
        center = self._scene.cube_position(cube)
        height = center[2] - place[2]
        carry = self._heights.carry + self._higher
        unsure = np.clip(height / carry, 0.0, 1.0)
        aim = place[:2] + self._rest + unsure * self._drift
        error = float(np.linalg.norm(aim - center[:2]))
        grip = hand - center  # where the hand holds the cube
        if error > _GLIDE and height < min(self._heights.lift, carry - 0.01):
            return self._action(np.array([*self._target[:2], place[2] + carry + grip[2]]), 0.0)
        # Down along a glide path; a little below its support, so that the last millimetre is not waited for.
        down = float(np.clip((error - 0.008) / _GLIDE, 0.0, 1.0))
        goal = place[2] - 0.002 + down * carry
        return self._action(np.array([*(aim + grip[:2]), goal + grip[2]]), 0.0)

    def _action(self, goal: Floats, opening: float) -> NDArray[np.float32]:
        """Moves the target towards a goal (3,) for one step, without jerks; returns the action."""
        gap = goal - self._target
        distance = float(np.linalg.norm(gap))
        wanted = gap * min(_BRAKING, _SPEED / max(distance, 1e-9))  # m/s
        change = wanted - self._velocity
        most = _ACCELERATION * self._dt
        self._velocity = self._velocity + change * min(1.0, most / max(float(np.linalg.norm(change)), 1e-9))
        self._target = np.clip(self._target + self._velocity * self._dt, ACTION_LOW[:3], ACTION_HIGH[:3])
        return np.array([*self._target, opening], np.float32)
