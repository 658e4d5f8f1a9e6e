"""Stack as a Gymnasium environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.gripper.env import GripperEnv, Info, Observation
from diffusion_policy_envs.gripper.progress import progress
from diffusion_policy_envs.gripper.scene import Floats, GripperScene
from diffusion_policy_envs.gripper.starts import apart, start_state
from diffusion_policy_envs.stack.subgoals import COLOURS, TOLERANCE, ReachedSubgoals, stacked

__all__ = ["StackEnv"]

_REACH, _APART = 0.15, 0.11  # m: where cubes and blocks stand, and how far from each other: fingers fit between
_STACKED = 0.95  # reward while both cubes stand, but not yet for long enough


class StackEnv(GripperEnv):
    """Put a red and a blue cube on the blocks of their colours with a parallel gripper, in any order.

    ## Description
    Two subgoals that are reached one after the other; which one comes first is free, and a policy that learned from
    demonstrations of both orders should show both. The gripper is that of PickPlace: it moves along x, y and z and does
    not turn, two fingers close along x and hold a cube (edges of 5 cm) by the friction of the pads alone. The blocks (6
    x 6 x 4 cm) stand fast. Lengths are metres; x points right, y away from the viewer, z up, the origin is the middle
    of the table's top. The table has no end in the physics.

    ## Action space
    `Box(4,), float32`: where the gripper shall be. It follows 67 ms behind, at 0.6 m/s at most. Values outside are
    clipped.

    | Num | Action                                       | Min  | Max  | Unit |
    |-----|----------------------------------------------|------|------|------|
    | 0   | target of the gripper along x                | -0.2 | 0.2  | m    |
    | 1   | target of the gripper along y                | -0.2 | 0.2  | m    |
    | 2   | target of the middle between the pads, z     | 0.02 | 0.25 | m    |
    | 3   | target of the opening: 0 closed, 1 open 9 cm | 0    | 1    |      |

    ## Observation space
    A `Dict` with the entries named by `obs_keys`; the first row is red, the second blue:

    | Key       | Shape     | Type    | Unit     | Meaning                                                        |
    |-----------|-----------|---------|----------|----------------------------------------------------------------|
    | `gripper` | (4,)      | float32 | m        | x, y, z between the pads, and the opening (0 to 1, no unit)    |
    | `cubes`   | (2, 5)    | float32 | m        | x, y, z of the centres; sin and cos of 4 yaw (no unit): a cube |
    |           |           |         |          | looks the same after each quarter of a turn                    |
    | `bases`   | (2, 2)    | float32 | m        | x, y of the blocks' centres                                    |
    | `state`   | (41,)     | float32 | m, s     | all that the episode depends on: positions (19: gripper x, y,  |
    |           |           |         |          | z, left and right finger, of each cube x, y, z, quaternion),   |
    |           |           |         |          | velocities (17), x, y of the blocks (4), for how long both     |
    |           |           |         |          | cubes have stood on theirs                                     |
    | `image`   | (s, s, 3) | uint8   | 0 to 255 | picture from the front, s = `image_size`                       |
    | `wrist`   | (s, s, 3) | uint8   | 0 to 255 | picture from a camera that moves with the gripper              |

    ## Rewards
    In [0, 1], from the present state alone; 1 only on success: 0.5 for each cube that stands on its block, and half of
    how far the other one has come (of two others, the one that has come furthest): 0.2 near(gripper to cube); while
    both fingers touch the cube 0.4 + 0.2 lifted + 0.3 near(cube to its block), as in PickPlace; 0.95 while both stand,
    but not yet for long enough. `info` holds
    `is_success`, `subgoals` ({"red": bool, "blue": bool}: reached so far, that is, at this or an earlier step of the
    episode) and `behavior`: the order in which they were first reached, one of `behaviors`, "" until both were.

    ## Starting state
    Cubes and blocks are uniform in [-0.15, 0.15]^2 m, at least 11 cm apart; the cubes are turned by up to 0.35 rad
    either way, as far as the fingers bear. The gripper is open, uniform in [-0.12, 0.12]^2 x [0.12, 0.18] m. In three
    of ten episodes it has any opening and z in [0.03, 0.18] m and, below 0.12 m, stands beside the things, as if a
    grasp had missed. All is at rest.
    `reset(options={"state": state})` starts exactly from an observed `state`; the episode goes on from there bit
    by bit as the recorded one did, but for subgoals that were reached before and no longer hold.

    ## Episode end
    Terminated when for 0.5 s both cubes have rested on the blocks of their colours (centres within 2.5 cm, seen from
    above) and nothing of the gripper has touched them. Truncated by the registered id after 270 steps (13.5 s).

    ## Arguments
    - `obs_keys`: entries of the observation, of `gripper`, `cubes`, `bases`, `state`, `image`, `wrist`.
    - `control_hz`: actions per second; divides 200.
    - `image_size`: height and width of the observed pictures, px; one number, or one for each, {"image": 96, ...}.
    - `render_mode`: None or `rgb_array`.
    - `render_size`: height and width of what `render()` returns, px.

    ## Expert
    `make_expert(seed)` returns a script that solves the task: `action = expert(obs, info)`, once per step. The seed
    says which cube comes first, each equally often.

    ## Symmetry
    `mirror(obs, action)` returns steps as they look in the mirror x = 0, in which the task is the same.

    ## Pictures
    Drawn by MuJoCo, which needs OpenGL; without, asking for one raises RuntimeError and says what to install.
    `observe(obs)` makes these observations of a recorded step with `state`; `picture(obs, size)` draws one, and
    `action_pixels(actions, size)` says where on it actions send the gripper.

    ## Version history
    - v0: first version.
    """

    behaviors: tuple[str, ...] = ("red,blue", "blue,red")
    _shapes: ClassVar[dict[str, tuple[int, ...]]] = {"cubes": (2, 5), "bases": (2, 2)}

    def __init__(
        self,
        obs_keys: Sequence[str] = ("gripper", "cubes", "bases"),
        control_hz: int = 20,
        image_size: int | Mapping[str, int] = 96,
        render_mode: str | None = None,
        render_size: int = 512,
    ) -> None:
        super().__init__(obs_keys, control_hz, image_size, render_mode, render_size)
        self._reached = ReachedSubgoals()

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns a script for this environment, which reads its simulated state; the same seed acts the same."""
        from diffusion_policy_envs.experts.stack_script import StackScript

        return StackScript(self.scene, seed=seed, control_hz=self.metadata["render_fps"])

    @staticmethod
    def _make_scene() -> GripperScene:
        return GripperScene("stack.xml", COLOURS, [f"{colour}_base" for colour in COLOURS])

    def _random_state(self) -> Floats:
        points = apart(self.np_random, 4, _REACH, _APART)
        return start_state(self.np_random, points[:2], points[2:])

    def _numbers(self, key: str, scene: GripperScene) -> Floats:
        return np.stack([scene.cube(i) if key == "cubes" else scene.place(i) for i in range(len(COLOURS))])

    def _begin(self) -> None:
        self._reached.forget()

    def _goal_holds(self) -> bool:
        return all(self._standing())

    def _measure(self) -> tuple[float, Info]:
        standing = self._standing()
        self._reached.see(standing)
        others = [i for i, stands in enumerate(standing) if not stands]
        ways = [progress(self.scene, i, self.scene.place(i), TOLERANCE) for i in others]
        reward = min(0.5 * sum(standing) + 0.5 * max(ways, default=0.0), _STACKED)
        return reward, {"subgoals": self._reached.subgoals, "behavior": self._reached.behavior}

    def _standing(self) -> tuple[bool, ...]:
        return tuple(stacked(self.scene, i) for i in range(len(COLOURS)))
