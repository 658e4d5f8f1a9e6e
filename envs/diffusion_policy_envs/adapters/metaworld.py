"""Meta-World (Yu et al. 2019; McLean et al. 2025): fifty tasks of a Sawyer arm, a scripted policy for each."""

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.adapters.simulated import Floats, Info, Observation, SimulatedEnv
from diffusion_policy_envs.gl import mujoco

__all__ = ["MetaWorldEnv", "check_installed"]

INSTALL = "pip install diffusion-policy mujoco==3.8.1 && pip install --no-deps metaworld==3.1.1"
_TOO_NEW = (3, 17)  # from here on MuJoCo's eq_data has 12 columns; metaworld 3.1.1 writes rows of 11
_MOST_DRAWS = 1000  # some tasks draw starts until one is to their liking


class MetaWorldEnv(SimulatedEnv):
    """One of the fifty tasks of Meta-World, `task`, with new places of things and goal in each episode.

    ## Description
    A Sawyer arm with two fingers at a table, 80 actions a second. Meta-World's models, rewards and success (v3) are
    untouched; after each step the state is rounded (see `simulated.py`). x points right, y away from the arm, z up, in
    metres. It needs a MuJoCo older than 3.17, in an environment of its own: see `INSTALL`.

    ## Action space
    `Box(-1, 1, (4,), float32)`, as in Meta-World: changes of where the hand is drawn to, by at most 1 cm along x, y, z;
    and how the fingers are driven: -1 open, 1 closed.

    ## Observation space
    A `Dict` with the entries named by `obs_keys`:

    | Key       | Shape     | Type    | Unit     | Meaning                                                             |
    |-----------|-----------|---------|----------|---------------------------------------------------------------------|
    | `hand`    | (4,)      | float32 | m        | x, y, z; distance of the fingers, 0 closed to 1 open 10 cm          |
    | `objects` | (2, 7)    | float32 | m        | position and quaternion (as the task has it) of up to two objects,  |
    |           |           |         |          | zeros where there are fewer                                         |
    | `goal`    | (3,)      | float32 | m        | where the object, or the hand, shall be                             |
    | `state`   | varies    | float32 | m, s     | all that the episode depends on, see `SimulatedEnv`; its last       |
    |           |           |         |          | numbers are those the task drew for this episode                    |
    | `image`   | (s, s, 3) | uint8   | 0 to 255 | picture from the front                                              |

    These are Meta-World's 39 numbers without the previous step.

    ## Rewards
    Meta-World's, 0 to 10. `info["is_success"]`: what Meta-World's `success` says.

    ## Starting state
    Drawn from the task's own range, anew for each episode (Meta-World's benchmarks keep 50 drawn beforehand).
    `reset(options={"state": state})` starts from an observed `state` and goes on bit by bit as the recorded episode.

    ## Episode end
    Terminated on success (Meta-World itself goes on); truncated by the registered id after 500 steps.

    ## Arguments
    - `task`: e.g. "reach", "pick-place"; a wrong one lists all.
    - `obs_keys`: entries of the observation, of `hand`, `objects`, `goal`, `state`, `image`.
    - `image_size`: height and width of `image`, px.
    - `render_mode`: None or `rgb_array`.
    - `render_size`: height and width of what `render()` returns, px.

    ## Expert
    `make_expert(seed)`: Meta-World's scripted policy of the task; the seed changes nothing.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012 (Gymnasium's own type)
    _action_names = ("x", "y", "z", "closing")

    def __init__(
        self,
        task: str = "reach",
        obs_keys: Sequence[str] = ("hand", "objects", "goal"),
        image_size: int = 96,
        render_mode: str | None = None,
        render_size: int = 512,
    ) -> None:
        check_installed(mujoco.__version__)
        self.task = task
        self.inner, self._starts = _make_inner(task)
        super().__init__(
            self.inner.model,
            self.inner.data,
            shapes={"hand": (4,), "objects": (2, 7), "goal": (3,)},
            extra=self._starts.last.size,
            camera="corner4",
            obs_keys=obs_keys,
            image_size=image_size,
            render_mode=render_mode,
            render_size=render_size,
        )

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns Meta-World's scripted policy for this task, which reads the simulated state."""
        policy = import_module("metaworld.policies").ENV_POLICY_MAP[f"{self.task}-v3"]()

        def act(obs: Observation, info: Info) -> NDArray[np.float32]:
            seen = self._seen()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that its actions leave [-1, 1]: here they are clipped
                action = policy.get_action(np.concatenate([seen, seen, self._goal()]))
            return np.asarray(np.clip(action, -1.0, 1.0), np.float32)

        return act

    def _begin(self) -> None:
        self._starts.generator = self.np_random
        self._reset_inner(None)
        self._reset_inner(self._starts.last)  # the first one began where the last episode had left the model's bodies

    def _reset_inner(self, start: Floats | None) -> None:
        self._starts.given, self._starts.draws = start, 0
        mujoco.mj_resetData(self.inner.model, self.inner.data)
        self.inner.reset()

    def _advance(self, action: NDArray[np.float32]) -> tuple[float, bool]:
        _, reward, _, _, info = self.inner.step(action)
        return float(reward), bool(info["success"])

    def _seen(self) -> Floats:
        """Returns Meta-World's (18,) of this step: hand, fingers, two objects of (7,)."""
        return np.asarray(self.inner._get_curr_obs_combined_no_goal(), np.float64)

    def _goal(self) -> Floats:
        return np.asarray(self.inner._get_pos_goal(), np.float64)

    def _numbers(self, key: str) -> ArrayLike:
        if key == "goal":
            return self._goal()
        return self._seen()[:4] if key == "hand" else self._seen()[4:].reshape(2, 7)

    def _extra_state(self) -> ArrayLike:
        return self._starts.last

    def _set_extra_state(self, extra: Floats) -> None:
        self._reset_inner(extra)  # what rewards compare with, and where fixed bodies stand, follows from it

    def _draw(self, size: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(super()._draw(size)[::-1, ::-1])  # Meta-World's cameras hang upside down

    def _twin(self) -> Self:
        return type(self)(self.task, self._obs_keys, self._image_size, "rgb_array", self._render_size)


class _Starts:
    """What an episode's start is drawn from, in place of Meta-World's own function: `start = starts()`.

    Args:
        space: the task's range.

    Attributes:
        generator: of chance.
        given: a start to return to, instead of chance.
        last: the start that was returned last, as float32 has it.
        draws: since somebody set it to 0.
    """

    def __init__(self, space: Any) -> None:
        self._low, self._high = space.low, space.high
        self.generator = np.random.default_rng(0)
        self.given: Floats | None = None
        self.last: Floats = np.array(self._low, np.float64)
        self.draws = 0

    def __call__(self) -> Floats:
        """Returns a start, a copy: some tasks change it.

        Raises:
            ValueError: the task wants another one again and again.
        """
        self.draws += 1
        if self.draws > _MOST_DRAWS:
            raise ValueError(f"the task accepts no start like {self.last}; give a state that it showed")
        start = self.generator.uniform(self._low, self._high) if self.given is None else self.given
        self.last = start.astype(np.float32).astype(np.float64)
        return self.last.copy()


def check_installed(mujoco_version: str) -> None:
    """Raises unless Meta-World is there, and beside a MuJoCo that it can work with; says how to install both.

    Raises:
        gymnasium.error.DependencyNotInstalled: one of them is not so.
    """
    major, minor = (int(part) for part in mujoco_version.split(".")[:2])
    if (major, minor) >= _TOO_NEW:
        raise gym.error.DependencyNotInstalled(
            f"Meta-World needs a MuJoCo older than 3.17 (metaworld 3.1.1 writes eq_data of 11 columns), but this is "
            f"{mujoco_version}; in an environment of its own: {INSTALL}"
        )
    if find_spec("metaworld") is None:
        raise gym.error.DependencyNotInstalled(
            f"metaworld is not installed; it pins a MuJoCo that is too old for us, so in an environment of its own: "
            f"{INSTALL}"
        )


def _make_inner(task: str) -> tuple[Any, _Starts]:
    """Returns Meta-World's environment of a task, and what its starts are drawn from."""
    known = import_module("metaworld").ALL_V3_ENVIRONMENTS
    if f"{task}-v3" not in known:
        names = ", ".join(name.removesuffix("-v3") for name in known)
        raise ValueError(f"task must be one of {names}; but got {task!r}")
    inner = known[f"{task}-v3"]()
    starts = _Starts(inner._random_reset_space)
    inner._partially_observable = False  # the goal is seen; bounds of what is seen follow from that
    inner.__dict__.pop("sawyer_observation_space", None)
    inner._set_task_called = True  # no list of 50 starts drawn beforehand:
    inner._get_state_rand_vec = starts
    inner.max_path_length = sys.maxsize  # time limits are the registered id's
    inner.reset()
    return inner, starts
