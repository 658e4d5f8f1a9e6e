"""PickPlace as a Gymnasium environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.gripper.env import GripperEnv, Info, Observation
from diffusion_policy_envs.gripper.progress import progress
from diffusion_policy_envs.gripper.scene import Floats, GripperScene
from diffusion_policy_envs.gripper.starts import apart, start_state
from diffusion_policy_envs.pickplace.goal import TOLERANCE, placed

__all__ = ["PickPlaceEnv"]

_REACH, _APART = 0.14, 0.1  # m: where cube and target lie, and how far from each other
_PLACED = 0.95  # reward while the cube is placed, but not yet for long enough


class PickPlaceEnv(GripperEnv):
    """Pick up a cube with a parallel gripper and place it on a drawn pad.

    ## Description
    The gripper hangs over a table, moves along x, y and z and does not turn; two fingers close along x. A cube with
    edges of 5 cm is held by the friction of the pads alone. Lengths are metres; x points right, y away from the viewer,
    z up, the origin is the middle of the table's top. The table has no end in the physics.

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
    A `Dict` with the entries named by `obs_keys`:

    | Key       | Shape     | Type    | Unit     | Meaning                                                        |
    |-----------|-----------|---------|----------|----------------------------------------------------------------|
    | `gripper` | (4,)      | float32 | m        | x, y, z between the pads, and the opening (0 to 1, no unit)    |
    | `cube`    | (5,)      | float32 | m        | x, y, z of the centre; sin and cos of 4 yaw (no unit): a cube  |
    |           |           |         |          | looks the same after each quarter of a turn                    |
    | `target`  | (2,)      | float32 | m        | x, y of the pad's centre                                       |
    | `state`   | (26,)     | float32 | m, s     | all that the episode depends on: positions (12: gripper x, y,  |
    |           |           |         |          | z, left and right finger, cube x, y, z, quaternion),           |
    |           |           |         |          | velocities (11), the target (2), for how long the cube has     |
    |           |           |         |          | been placed                                                    |
    | `image`   | (s, s, 3) | uint8   | 0 to 255 | picture from the front, s = `image_size`                       |
    | `wrist`   | (s, s, 3) | uint8   | 0 to 255 | picture from a camera that moves with the gripper              |

    ## Rewards
    In [0, 1], from the present state alone; 1 only on success. With near(d) = 1 - min(d / 0.3 m, 1):
    0.2 near(gripper to cube); while both fingers touch the cube 0.4 + 0.2 lifted + 0.3 near(cube to target), where
    lifted grows from 0 to 1 over the first 3 cm above the table and is 1 over the target. So an episode's highest
    reward says how far it got: below 0.2 not even reached, to 0.7 grasped, 0.9 at the target, 0.95 placed, 1 for long
    enough. `info` holds `is_success`, `held` (both fingers touch the cube) and `distance` (from cube to
    target, m).

    ## Starting state
    Cube and target are uniform in [-0.14, 0.14]^2 m, at least 10 cm apart; the cube is turned by up to 0.35 rad either
    way, as far as the fingers bear. The gripper is open, uniform in [-0.12, 0.12]^2 x [0.12, 0.18] m. In three of ten
    episodes it has any opening and z in [0.03, 0.18] m and, below 0.12 m, stands beside the things, as if a grasp had
    missed. All is at rest.
    `reset(options={"state": state})` starts exactly from an observed `state`; the episode goes on from there bit by
    bit as the recorded one did.

    ## Episode end
    Terminated when for 0.5 s the cube has rested on the table within 2 cm of the target's centre and nothing of the
    gripper has touched it. Truncated by the registered id after 120 steps (6 s).

    ## Arguments
    - `obs_keys`: entries of the observation, of `gripper`, `cube`, `target`, `state`, `image`, `wrist`.
    - `control_hz`: actions per second; divides 200.
    - `image_size`: height and width of the observed pictures, px; one number, or one for each, {"image": 96, ...}.
    - `render_mode`: None or `rgb_array`.
    - `render_size`: height and width of what `render()` returns, px.

    ## Expert
    `make_expert(seed)` returns a script that solves the task: `action = expert(obs, info)`, once per step.

    ## Symmetry
    `mirror(obs, action)` returns steps as they look in the mirror x = 0, in which the task is the same.

    ## Pictures
    Drawn by MuJoCo, which needs OpenGL; without, asking for one raises RuntimeError and says what to install.
    `observe(obs)` makes these observations of a recorded step with `state`; `picture(obs, size)` draws one, and
    `action_pixels(actions, size)` says where on it actions send the gripper.

    ## Version history
    - v0: first version.
    """

    _shapes: ClassVar[dict[str, tuple[int, ...]]] = {"cube": (5,), "target": (2,)}

    def __init__(
        self,
        obs_keys: Sequence[str] = ("gripper", "cube", "target"),
        control_hz: int = 20,
        image_size: int | Mapping[str, int] = 96,
        render_mode: str | None = None,
        render_size: int = 512,
    ) -> None:
        super().__init__(obs_keys, control_hz, image_size, render_mode, render_size)

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns a script for this environment, which reads its simulated state; the same seed acts the same."""
        from diffusion_policy_envs.experts.pickplace_script import PickPlaceScript

        return PickPlaceScript(self.scene, seed=seed, control_hz=self.metadata["render_fps"])

    @staticmethod
    def _make_scene() -> GripperScene:
        return GripperScene("pickplace.xml", ["cube"], ["target"])

    def _random_state(self) -> Floats:
        cube, target = apart(self.np_random, 2, _REACH, _APART)
        return start_state(self.np_random, cube[None], target[None])

    def _numbers(self, key: str, scene: GripperScene) -> Floats:
        return scene.cube(0) if key == "cube" else scene.place(0)

    def _begin(self) -> None:
        """Nothing of an episode is remembered."""

    def _goal_holds(self) -> bool:
        return placed(self.scene)

    def _measure(self) -> tuple[float, Info]:
        scene = self.scene
        reward = _PLACED if placed(scene) else progress(scene, 0, scene.place(0), TOLERANCE)
        distance = float(np.linalg.norm(scene.cube_position(0)[:2] - scene.place(0)))
        return reward, {"held": scene.held(0), "distance": distance}
