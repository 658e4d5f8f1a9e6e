"""What the environments with the gripper share: arguments, stepping, pictures, recorded steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.arguments import (
    check_choice,
    check_image_sizes,
    check_obs_keys,
    check_options,
    check_size,
    check_vector,
    substeps,
)
from diffusion_policy_envs.gripper.pictures import ScenePictures
from diffusion_policy_envs.gripper.scene import PHYSICS_HZ, Floats, GripperScene
from diffusion_policy_envs.gripper.symmetry import mirror_actions, mirror_observations

__all__ = ["ACTION_HIGH", "ACTION_LOW", "GripperEnv", "Info", "Observation"]

Observation = dict[str, NDArray[Any]]
Info = dict[str, Any]

ACTION_LOW, ACTION_HIGH = (-0.2, -0.2, 0.02, 0.0), (0.2, 0.2, 0.25, 1.0)
# How long the goal must hold. A policy executes chunks of eight actions and learns from windows that end at most seven
# steps after an episode: were letting go an episode's last action, it could learn it as the last of a chunk only.
HOLD_S = 0.5  # s
_CAMERAS = {"image": "front", "wrist": "wrist"}  # observations that cameras see
_FAR = 1000.0  # m, m/s, rad/s: the table has no end, but nothing gets as far or as fast as this in an episode


class GripperEnv(gym.Env[Observation, NDArray[np.float32]], ABC):
    """An environment in which a gripper moves cubes; a task says which, what is observed and what is wanted.

    Args:
        obs_keys: entries of the observation.
        control_hz: actions per second; divides 200.
        image_size: height and width of the observed pictures, px; one number, or one for each.
        render_mode: None or `rgb_array`.
        render_size: height and width of what `render()` returns, px.

    The observation `state` is the table's, and the time (s) for which the goal has held.

    Attributes:
        scene: the simulated table.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own type)
    renderer = "mujoco"
    _shapes: ClassVar[dict[str, tuple[int, ...]]]  # of the task's own observations; `gripper` and `state` come with all

    def __init__(
        self,
        obs_keys: Sequence[str],
        control_hz: int,
        image_size: int | Mapping[str, int],
        render_mode: str | None,
        render_size: int,
    ) -> None:
        self._substeps = substeps(control_hz, PHYSICS_HZ)
        self.metadata = {**self.metadata, "render_fps": control_hz}
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.render_mode = render_mode
        self._image_sizes = check_image_sizes(image_size, tuple(_CAMERAS))
        self._render_size = check_size("render_size", render_size)
        self._obs_keys = check_obs_keys(obs_keys, ("gripper", *self._shapes, "state", *_CAMERAS))
        self.scene = self._make_scene()
        self._held_s = 0.0
        self.action_space = gym.spaces.Box(np.array(ACTION_LOW, np.float32), np.array(ACTION_HIGH, np.float32))
        self.observation_space = self._make_observation_space()

    def _make_observation_space(self) -> gym.Space[Observation]:
        shapes = {"gripper": (4,), **self._shapes, "state": (self.scene.state_size + 1,)}
        known: dict[str, gym.Space[Any]] = {
            key: gym.spaces.Box(-_FAR, _FAR, shape, np.float32) for key, shape in shapes.items()
        }
        known |= {key: gym.spaces.Box(0, 255, (size, size, 3), np.uint8) for key, size in self._image_sizes.items()}
        return cast("gym.Space[Observation]", gym.spaces.Dict({key: known[key] for key in self._obs_keys}))

    @staticmethod
    @abstractmethod
    def _make_scene() -> GripperScene:
        """Returns a table of this task."""

    @abstractmethod
    def _random_state(self) -> Floats:
        """Returns how the table looks when an episode begins."""

    @abstractmethod
    def _numbers(self, key: str, scene: GripperScene) -> Floats:
        """Returns one of the task's own observations of a table."""

    @abstractmethod
    def _begin(self) -> None:
        """Forgets the last episode."""

    @abstractmethod
    def _goal_holds(self) -> bool:
        """Returns whether everything stands where it shall, let go."""

    @abstractmethod
    def _measure(self) -> tuple[float, Info]:
        """Returns the reward before success, and what `info` holds beside `is_success`."""

    @abstractmethod
    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns a script that solves the task, which reads the simulated state; the same seed acts the same."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Starts an episode at random, or from `options["state"]`; see the class."""
        super().reset(seed=seed)
        options = options or {}
        check_options(options, ("state",))
        state = self._check_state("options['state']", options["state"]) if options else [*self._random_state(), 0.0]
        self.scene.set_state(state[:-1])
        self._held_s = float(np.float32(state[-1]))
        self._begin()
        return self._observe(self.scene, self._held_s), self._score()[1]

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        """Draws the gripper to `action` for 1 / `control_hz` seconds; see the class."""
        vector = check_vector("action", action, 4, "targets of x, y, z in m and of the opening in [0, 1]")
        self.scene.step(np.clip(vector, ACTION_LOW, ACTION_HIGH), self._substeps)
        # As float32, like all of a state: see `GripperScene`.
        self._held_s = float(np.float32(self._held_s + self._substeps / PHYSICS_HZ)) if self._goal_holds() else 0.0
        reward, info = self._score()
        return self._observe(self.scene, self._held_s), reward, info["is_success"], False, info

    def _score(self) -> tuple[float, Info]:
        reward, info = self._measure()
        success = self._held_s > HOLD_S - 1e-4
        return 1.0 if success else reward, {"is_success": success, **info}

    def render(self) -> NDArray[np.uint8] | None:
        """Returns the table as (render_size, render_size, 3), uint8; None without a render mode."""
        if self.render_mode != "rgb_array":
            return None
        return self._pictures.draw(self.scene.state, self._render_size, _CAMERAS["image"])

    def close(self) -> None:
        """Frees the GL contexts; the environment stays usable."""
        self._pictures.close()

    def mirror(
        self, obs: Mapping[str, NDArray[Any]], action: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Returns the mirror image of steps: an equally good demonstration of the same task.

        Args:
            obs: {key: (N, *shape)}, some of this environment's observations.
            action: (N, 4).
        """
        return mirror_observations(obs, len(self.scene.cubes), len(self.scene.places)), mirror_actions(action)

    def observe(self, obs: Mapping[str, ArrayLike]) -> Observation:
        """Returns what this environment would have shown at a recorded step; the episode goes on untouched.

        Args:
            obs: {key: array} of one step, with `state`.

        Raises:
            ValueError: the step does not say how the table looked.
        """
        state = self._recorded(obs)
        self._pictures.scene.set_state(state[:-1])
        return self._observe(self._pictures.scene, float(state[-1]))

    def picture(self, obs: Mapping[str, ArrayLike], size: int) -> NDArray[np.uint8]:
        """Returns a recorded step as `render()` would show it, (size, size, 3), uint8; the episode goes on untouched.

        Args:
            obs: {key: array} of one step, with `state`.
            size: height and width, px.

        Raises:
            ValueError: the step does not say how the table looked.
        """
        return self._pictures.draw(self._recorded(obs)[:-1], check_size("size", size), _CAMERAS["image"])

    def action_pixels(self, actions: ArrayLike, size: int) -> Floats:
        """Returns where the gripper shall go, of actions (K, 4), on a picture: (K, 2), x and y in its px.

        (0, 0) is the outer corner of the first pixel, (size, size) that of the last.
        """
        targets = np.clip(np.asarray(actions, np.float64).reshape(-1, 4), ACTION_LOW, ACTION_HIGH)
        return self._pictures.pixels(targets[:, :3], size, _CAMERAS["image"])

    @cached_property
    def _pictures(self) -> ScenePictures:
        return ScenePictures(self._make_scene)

    def _recorded(self, obs: Mapping[str, ArrayLike]) -> Floats:
        if "state" not in obs:
            names = ", ".join(sorted(obs)) or "none"
            raise ValueError(
                f"a recorded step must hold state, but it has {names}; record it with obs_keys=[..., state]"
            )
        return self._check_state("a recorded state", obs["state"])

    def _check_state(self, name: str, value: ArrayLike) -> Floats:
        state = check_vector(name, value, self.scene.state_size + 1, "as the observation `state` has it")
        turns = state[5 : self.scene.model.nq].reshape(-1, 7)[:, 3:]
        if np.any(np.abs(np.linalg.norm(turns, axis=1) - 1.0) > 1e-3):
            raise ValueError(
                f"{name} must hold quaternions of length 1, but got {turns.tolist()}; divide by the length"
            )
        return state

    def _observe(self, scene: GripperScene, held_s: float) -> Observation:
        return {key: self._observe_key(key, scene, held_s) for key in self._obs_keys}

    def _observe_key(self, key: str, scene: GripperScene, held_s: float) -> NDArray[Any]:
        if key in _CAMERAS:
            return self._pictures.draw(scene.state, self._image_sizes[key], _CAMERAS[key])
        if key == "state":
            return np.append(scene.state, np.float32(held_s))
        return (scene.gripper if key == "gripper" else self._numbers(key, scene)).astype(np.float32)
