"""Tasks of the Fetch robot (gymnasium-robotics), with named fields and scripts that solve them."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy_envs import gl  # first: it chooses the GL before MuJoCo is imported
from diffusion_policy_envs.adapters.fetch_script import PickAndPlaceScript, Script, reach_script
from diffusion_policy_envs.adapters.joint_types import read_joint_types_as_numbers
from diffusion_policy_envs.adapters.needs import needed
from diffusion_policy_envs.adapters.robotics import Floats, Info, RoboticsEnv
from diffusion_policy_envs.arguments import check_choice

__all__ = ["FetchEnv"]

_CLASSES = {
    "pick_and_place": "MujocoFetchPickAndPlaceEnv",
    "push": "MujocoFetchPushEnv",
    "reach": "MujocoFetchReachEnv",
}


class FetchEnv(RoboticsEnv):
    """Bring a cube, or the gripper itself, to a goal with the Fetch robot's arm.

    ## Description
    `FetchPickAndPlace`, `FetchPush` and `FetchReach` of gymnasium-robotics (Plappert et al. 2018): their physics,
    starts, rewards and success. The gripper points down and does not turn; the cube has edges of 5 cm. x points away
    from the robot, z up.

    ## Action space
    `Box(-1, 1, (4,), float32)`. Values outside are clipped.

    | Num | Action                                                   | Min | Max | Unit |
    |-----|----------------------------------------------------------|-----|-----|------|
    | 0-2 | how far the gripper shall move along x, y, z, 1 for 5 cm | -1  | 1   | 5 cm |
    | 3   | opens (above 0) or closes the fingers; without effect in | -1  | 1   |      |
    |     | `push` and `reach`, whose fingers stay closed            |     |     |      |

    ## Observation space
    A `Dict` with the entries named by `obs_keys`:

    | Key       | Shape     | Type    | Unit     | Meaning                                                         |
    |-----------|-----------|---------|----------|-----------------------------------------------------------------|
    | `gripper` | (4,)      | float32 | m        | x, y, z between the fingers; how far these are apart            |
    | `object`  | (3,)      | float32 | m        | the cube's centre (not in `reach`)                              |
    | `goal`    | (3,)      | float32 | m        | where it, or the gripper, shall be                              |
    | `state`   | (n,)      | float32 | m, rad, s| positions, velocities and the goal; n depends on the task       |
    | `image`   | (s, s, 3) | uint8   | 0 to 255 | picture from behind the table, s = `image_size`                 |

    ## Rewards
    The package's: `sparse`, -1 until the distance to the goal is 5 cm or less and then 0, or `dense`, minus the
    distance (`reward_type`). `info` holds `is_success` (within 5 cm now) and `distance` (m).

    ## Starting state
    The package's: the cube at least 10 cm from the point below the gripper, the goal of `pick_and_place` in the air in
    half of all episodes. `reset(options={"state": state})` starts from an observed `state`; the episode goes on as the
    recorded one did to a millimetre or so, for the package observes the scene 2 ms late.

    ## Episode end
    Never terminated: the goal is to be held. Truncated by the registered id after 50 steps (2 s).

    ## Arguments
    - `task`: `pick_and_place`, `push` or `reach`.
    - `obs_keys`: entries of the observation; None for all fields of the task.
    - `reward_type`: `sparse` or `dense`.
    - `image_size`, `render_mode` (None or `rgb_array`), `render_size`: pictures, px.

    ## Expert
    `make_expert(seed)` returns a script, `action = expert(obs, info)`, of `pick_and_place` and `reach`.

    ## Pictures
    `picture(obs, size)` and `observe(obs)` take recorded steps with `state`.

    ## Version history
    - v0: first version.
    """

    _camera = "external_camera_0"
    _action = "movements along x, y, z and of the fingers in [-1, 1]"

    def __init__(
        self,
        task: str = "pick_and_place",
        obs_keys: Sequence[str] | None = None,
        reward_type: str = "sparse",
        image_size: int = 96,
        render_mode: str | None = None,
        render_size: int = 512,
    ) -> None:
        check_choice("task", task, tuple(_CLASSES))
        check_choice("reward_type", reward_type, ("sparse", "dense"))
        self._task, self._reward_type = task, reward_type
        fields = ("gripper", "goal") if task == "reach" else ("gripper", "object", "goal")
        super().__init__(obs_keys if obs_keys is not None else fields, image_size, render_mode, render_size)

    @property
    def make_expert(self) -> Callable[[int], Script]:
        """Returns, for a seed, a script that solves the task, which reads where things are.

        Raises:
            AttributeError: of task `push`, which has none: who asks whether there is one is told so.
        """
        if self._task == "push":
            raise AttributeError("there is no script of task push; expected pick_and_place or reach")
        return self._script

    def _script(self, seed: int) -> Script:
        def seen() -> dict[str, Floats]:
            return self._fields(self.core)

        return PickAndPlaceScript(seen, seed=seed) if self._task == "pick_and_place" else reach_script(seen)

    def _make_core(self) -> Any:
        needed("gymnasium_robotics", "robotics")
        read_joint_types_as_numbers(import_module("gymnasium_robotics.utils.mujoco_utils"))
        module = import_module(f"gymnasium_robotics.envs.fetch.{self._task}")
        core = getattr(module, _CLASSES[self._task])(reward_type=self._reward_type)
        core.reset(seed=0)
        return core

    def _fields(self, core: Any) -> dict[str, Floats]:
        # As the package observes them, but for its search of all joints by their names, which takes longer than a step.
        apart = sum(core.data.joint(f"robot0:{side}_gripper_finger_joint").qpos[0] for side in "lr")
        fields = {"gripper": np.append(core.data.site("robot0:grip").xpos, apart)}
        if self._task != "reach":
            fields["object"] = core.data.site("object0").xpos.copy()
        return {**fields, "goal": core.goal.copy()}

    def _state(self, core: Any) -> Floats:
        return np.concatenate([core.data.qpos, core.data.qvel, core.goal])

    def _set_state(self, core: Any, state: Floats) -> None:
        model, data = core.model, core.data
        gl.mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], core.goal = state[: model.nq], state[model.nq : -3], state[-3:].copy()
        gl.mujoco.mj_forward(model, data)
        core._utils.reset_mocap2body_xpos(model, data)  # what draws the arm, as every action does first
        core._render_callback()  # puts the goal's mark where the goal is

    def _info(self) -> Info:
        fields = self._fields(self.core)
        distance = float(np.linalg.norm(fields.get("object", fields["gripper"][:3]) - fields["goal"]))
        return {"is_success": distance < self.core.distance_threshold, "distance": distance}

    def _recorded(self, obs: Mapping[str, ArrayLike]) -> Floats:
        if "state" not in obs:
            raise ValueError(
                f"a recorded step must hold state, but it has {', '.join(sorted(obs)) or 'nothing'}; record it with "
                f"obs_keys=[..., state]"
            )
        return self._check_state("a recorded state", obs["state"])
