"""OGBench's manipulation by a UR5e arm (Park et al. 2024): cubes to their places, and Lights Out with buttons."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.adapters.needs import needed
from diffusion_policy_envs.adapters.simulated import Floats, Info, Observation, SimulatedEnv

__all__ = ["CubeDoubleEnv", "CubeSingleEnv", "Puzzle3x3Env"]

_TASKS = (1, 2, 3, 4, 5)
_MODULE = "ogbench.manipspace.envs"


class OGBenchEnv(SimulatedEnv):
    """What the tasks share: arguments, the arm, how an episode begins and ends.

    Args:
        task_id: one of OGBench's tasks, 1 to 5; None: each episode draws one.
        obs_keys: entries of the observation; None: `effector`, `gripper` and the task's own.
        image_size: height and width of `image`, px.
        render_mode: None or `rgb_array`.
        render_size: height and width of what `render()` returns, px.

    Attributes:
        inner: OGBench's own environment.
    """

    _action_names = ("x", "y", "z", "yaw", "closing")
    _kind: ClassVar[tuple[str, str, dict[str, Any]]]  # module, class and arguments of OGBench's environment
    _own: ClassVar[dict[str, tuple[int, ...]]]  # shapes of the task's own observations
    _extra_numbers: ClassVar[int] = 0

    def __init__(
        self,
        task_id: int | None = None,
        obs_keys: Sequence[str] | None = None,
        image_size: int = 96,
        render_mode: str | None = None,
        render_size: int = 512,
    ) -> None:
        if task_id is not None and task_id not in _TASKS:
            raise ValueError(f"task_id must be one of {list(_TASKS)}, or None for any of them, but got {task_id!r}")
        self.task_id = task_id
        self.inner = self._make_inner()
        super().__init__(
            self.inner.model,
            self.inner.data,
            shapes={"effector": (5,), "gripper": (2,), **self._own, "joints": (12,)},
            extra=self._extra_numbers,
            camera="front",
            obs_keys=("effector", "gripper", *self._own) if obs_keys is None else obs_keys,
            image_size=image_size,
            render_mode=render_mode,
            render_size=render_size,
        )

    @classmethod
    def _make_inner(cls) -> Any:
        module, name, arguments = cls._kind
        needed("ogbench", "ogbench")
        theirs = getattr(needed(f"{_MODULE}.{module}", "ogbench"), name)
        # Theirs is a property that makes a new, unseeded space at each look and warns of its precision each time.
        space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
        inner = type(name, (theirs,), {"action_space": space})(**arguments)
        inner.reset(seed=0, options={"task_id": 1})  # compiles the model
        return inner

    def _twin(self) -> Self:
        return type(self)(self.task_id, self._obs_keys, self._image_size, "rgb_array", self._render_size)

    def _begin(self) -> None:
        task = self.task_id or int(self.np_random.integers(1, len(_TASKS) + 1))
        self.inner.reset(seed=int(self.np_random.integers(2**31)), options={"task_id": task})
        # OGBench looks at the goal with a few random actions, which its seed does not tell, and forgets the last one
        # here: the motors hold the arm where it is instead.
        self.data.ctrl[:] = 0.0
        self.data.ctrl[self.inner._arm_actuator_ids] = self.data.qpos[self.inner._arm_joint_ids]

    def _advance(self, action: NDArray[np.float32]) -> tuple[float, bool]:
        _, reward, _, _, info = self.inner.step(action)
        return float(reward), bool(info["success"])

    def _settled(self) -> bool:
        self.inner.pre_step()
        self.inner.post_step()  # colours and success
        return bool(self.inner._success)

    def _numbers(self, key: str) -> ArrayLike:
        told = self.inner.compute_ob_info()
        if key == "effector":
            yaw = told["proprio/effector_yaw"]
            return np.concatenate([told["proprio/effector_pos"], np.sin(yaw), np.cos(yaw)])
        if key == "gripper":
            return np.concatenate([told["proprio/gripper_opening"], told["proprio/gripper_contact"]])
        if key == "joints":
            return np.concatenate([told["proprio/joint_pos"], told["proprio/joint_vel"]])
        return self._own_numbers(key, told)

    def _own_numbers(self, key: str, told: dict[str, Any]) -> ArrayLike:
        raise NotImplementedError

    def _extra_state(self) -> ArrayLike:
        return np.zeros(0)

    def _set_extra_state(self, extra: Floats) -> None:
        """Has none: places where cubes shall be are bodies of MuJoCo's."""


class CubeEnv(OGBenchEnv):
    """What one and two cubes share."""

    _cubes: ClassVar[int]

    def goals(self) -> Floats:
        """Returns where the cubes shall be, (number of cubes, 3), m."""
        return np.array(self.data.mocap_pos, np.float64)

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns OGBench's oracle, which reads the simulated state; the same seed acts the same."""
        from diffusion_policy_envs.adapters.ogbench_expert import CubeExpert

        return CubeExpert(self.inner, self.goals, seed)

    def _own_numbers(self, key: str, told: dict[str, Any]) -> ArrayLike:
        if key == "goals":
            return self.goals()
        rows = []
        for i in range(self._cubes):
            turn = 4.0 * told[f"privileged/block_{i}_yaw"]
            rows.append(np.concatenate([told[f"privileged/block_{i}_pos"], np.sin(turn), np.cos(turn)]))
        return np.stack(rows)


class CubeSingleEnv(CubeEnv):
    """OGBench's cube-single: an arm brings a cube to its place.

    ## Description
    A UR5e arm with a Robotiq gripper, 20 actions a second. OGBench's model, tasks and success are untouched; after each
    step the state is rounded (see `simulated.py`). x points away from the arm, y to its left, z up, in metres.

    ## Action space
    `Box(-1, 1, (5,), float32)`: changes, as in OGBench's own data. From where the effector is now, not from the last
    target: by at most 5 cm along x, y, z, 0.3 rad of yaw, and the gripper's closing by all of it.

    ## Observation space
    A `Dict` with the entries named by `obs_keys`:

    | Key        | Shape     | Type    | Unit       | Meaning                                                         |
    |------------|-----------|---------|------------|-----------------------------------------------------------------|
    | `effector` | (5,)      | float32 | m          | x, y, z between the fingers; sin and cos of the yaw             |
    | `gripper`  | (2,)      | float32 |            | 0 open to 1 closed; force on a finger, 1 at 50 N and above      |
    | `cubes`    | (1, 5)    | float32 | m          | x, y, z; sin and cos of 4 yaw: it looks the same after quarters |
    | `goals`    | (1, 3)    | float32 | m          | where it shall be                                               |
    | `joints`   | (12,)     | float32 | rad, rad/s | angles and velocities of the arm                                |
    | `state`    | varies    | float32 | m, s       | all that the episode depends on, see `SimulatedEnv`             |
    | `image`    | (s, s, 3) | uint8   | 0 to 255   | picture from the front; the goal is drawn transparently         |

    ## Rewards
    1 on success, else 0. `info["is_success"]`: the cube's centre is within 4 cm of the goal, held or not.

    ## Starting state
    One of OGBench's five pairs of start and goal, `task_id`; None draws one for each episode. The cube lies within 1 cm
    of its start, turned at random, the arm is anywhere above the table. `reset(options={"state": state})` starts from
    an observed `state` and goes on bit by bit as the recorded episode did.

    ## Episode end
    Terminated on success; truncated by the registered id after 200 steps (10 s).

    ## Arguments
    - `task_id`: one of OGBench's tasks, 1 to 5; None: each episode draws one.
    - `obs_keys`: entries of the observation; None: `effector`, `gripper`, `cubes`, `goals`.
    - `image_size`, `render_mode`, `render_size`: see `SimulatedEnv`.

    ## Expert
    `make_expert(seed)`: OGBench's Markov oracle.
    """

    _kind = ("cube_env", "CubeEnv", {"env_type": "single"})
    _own: ClassVar[dict[str, tuple[int, ...]]] = {"cubes": (1, 5), "goals": (1, 3)}
    _cubes = 1


class CubeDoubleEnv(CubeEnv):
    """OGBench's cube-double: an arm brings a red and a blue cube to their places.

    As `CubeSingleEnv`, with `cubes` (2, 5) and `goals` (2, 3), red first. The tasks: 1 brings one cube, 2 and 3 both, 4
    swaps them, 5 stacks blue on red. Success when both are within 4 cm of their goals. Truncated by the registered id
    after 500 steps (25 s). Colours are not permuted, as in OGBench's single-task variants. The expert calls OGBench's
    oracle for one cube after the other; to swap them it parks one first.
    """

    _kind = ("cube_env", "CubeEnv", {"env_type": "double", "permute_blocks": False})
    _own: ClassVar[dict[str, tuple[int, ...]]] = {"cubes": (2, 5), "goals": (2, 3)}
    _cubes = 2


class Puzzle3x3Env(OGBenchEnv):
    """OGBench's puzzle-3x3: Lights Out. An arm presses buttons, each of which switches itself and its neighbours.

    As `CubeSingleEnv`, but observed are, instead of cubes and goals (rows away from the arm, columns to its left):

    | Key       | Shape | Type    | Unit | Meaning                                                   |
    |-----------|-------|---------|------|-----------------------------------------------------------|
    | `buttons` | (9,)  | float32 |      | 0 red, 1 blue                                             |
    | `goals`   | (9,)  | float32 |      | what they shall be; not to be seen on pictures            |
    | `depths`  | (9,)  | float32 | m    | how far each is pressed, 0 to -0.024; below -0.02 it acts |

    Success when all buttons are as they shall be. Truncated by the registered id after 500 steps (25 s). The expert
    solves the puzzle, then calls OGBench's oracle for one button after the other.
    """

    _kind = ("puzzle_env", "PuzzleEnv", {"env_type": "3x3"})
    _own: ClassVar[dict[str, tuple[int, ...]]] = {"buttons": (9,), "goals": (9,), "depths": (9,)}
    _extra_numbers = 18

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns OGBench's oracle, which reads the simulated state; the same seed acts the same."""
        from diffusion_policy_envs.adapters.ogbench_expert import PuzzleExpert

        return PuzzleExpert(self.inner, seed)

    def _own_numbers(self, key: str, told: dict[str, Any]) -> ArrayLike:
        if key == "depths":
            return np.concatenate([told[f"privileged/button_{i}_pos"] for i in range(9)])
        return np.array(self.inner._cur_button_states if key == "buttons" else self.inner._target_button_states)

    def _extra_state(self) -> ArrayLike:
        return np.concatenate([self.inner._cur_button_states, self.inner._target_button_states])

    def _set_extra_state(self, extra: Floats) -> None:
        now, wanted = np.split(np.rint(extra).astype(int) % 2, 2)
        self.inner._cur_button_states, self.inner._target_button_states = now, wanted
