"""What the adapters to gymnasium-robotics share: named fields, states that restore, pictures of recorded steps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs import gl
from diffusion_policy_envs.arguments import (
    check_choice,
    check_image_sizes,
    check_obs_keys,
    check_options,
    check_size,
    check_vector,
)
from diffusion_policy_envs.rendering import MujocoRenderer

__all__ = ["Floats", "Info", "Observation", "RoboticsEnv"]

Floats = NDArray[np.float64]
Observation = dict[str, NDArray[Any]]
Info = dict[str, Any]

_FAR = 1e6  # m, rad, a second: the package sets no bounds, and Gymnasium's checker asks for some


class RoboticsEnv(gym.Env[Observation, NDArray[np.float32]], ABC):
    """An environment of gymnasium-robotics, whose physics, starts, rewards and success stay as they are.

    Args:
        obs_keys: entries of the observation: fields of the task, `state`, `image`.
        image_size: height and width of `image`, px.
        render_mode: None or `rgb_array`.
        render_size: height and width of what `render()` returns, px.

    Attributes:
        core: the environment of the package.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (Gymnasium's own type)
    renderer = "mujoco"
    _camera: ClassVar[str]  # of the package's XML
    _action: ClassVar[str]  # what it means, for messages

    def __init__(self, obs_keys: Sequence[str], image_size: int, render_mode: str | None, render_size: int) -> None:
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.render_mode = render_mode
        self._image_size = check_image_sizes(image_size, ("image",))["image"]
        self._render_size = check_size("render_size", render_size)
        self.core = self._make_core()
        sizes = {key: values.shape for key, values in self._fields(self.core).items()}
        self._obs_keys = check_obs_keys(obs_keys, (*sizes, "state", "image"))
        self._state_size = len(self._state(self.core))
        shapes = {**sizes, "state": (self._state_size,)}
        known: dict[str, gym.Space[Any]] = {
            key: gym.spaces.Box(-_FAR, _FAR, shape, np.float32) for key, shape in shapes.items()
        }
        known["image"] = gym.spaces.Box(0, 255, (self._image_size, self._image_size, 3), np.uint8)
        space = gym.spaces.Dict({key: known[key] for key in self._obs_keys})
        self.observation_space = cast("gym.Space[Observation]", space)
        self.action_space = gym.spaces.Box(-1.0, 1.0, self.core.action_space.shape, np.float32)
        self._begun = False

    @abstractmethod
    def _make_core(self) -> Any:
        """Returns an environment of the package, reset, with MuJoCo's `model` and `data`."""

    @abstractmethod
    def _fields(self, core: Any) -> dict[str, Floats]:
        """Returns the task's fields as an environment of the package stands."""

    @abstractmethod
    def _state(self, core: Any) -> Floats:
        """Returns all that an episode depends on."""

    @abstractmethod
    def _set_state(self, core: Any, state: Floats) -> None:
        """Puts an environment of the package into a state."""

    @abstractmethod
    def _recorded(self, obs: Mapping[str, ArrayLike]) -> Floats:
        """Returns the state of a recorded step; raises ValueError where the step does not tell it."""

    @abstractmethod
    def _info(self) -> Info:
        """Returns what `info` holds, `is_success` at least."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Starts an episode as the package does, or from `options["state"]`; see the class."""
        super().reset(seed=seed)
        options = options or {}
        check_options(options, ("state",))
        if seed is None and not self._begun:  # the package's own was seeded when it was made
            seed = int(self.np_random.integers(2**31))
        self._begun = True
        self.core.reset(seed=seed)
        if "state" in options:
            self._set_state(self.core, self._check_state("options['state']", options["state"]))
        return self._observe(self.core), self._info()

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        """Lets the package's environment do an action; see the class."""
        vector = check_vector("action", action, int(np.prod(self.action_space.shape or ())), self._action)
        _, reward, *_ = self.core.step(np.clip(vector, -1.0, 1.0))
        return self._observe(self.core), float(reward), False, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """Returns the scene as (render_size, render_size, 3), uint8; None without a render mode."""
        return self._draw(self._state(self.core), self._render_size) if self.render_mode == "rgb_array" else None

    def observe(self, obs: Mapping[str, ArrayLike]) -> Observation:
        """Returns what this environment would have shown at a recorded step; the episode goes on untouched.

        Args:
            obs: {key: array} of one step, as for `picture`.
        """
        self._set_state(self._stage, self._recorded(obs))
        return self._observe(self._stage)

    def picture(self, obs: Mapping[str, ArrayLike], size: int) -> NDArray[np.uint8]:
        """Returns a recorded step as `render()` would show it, (size, size, 3), uint8; the episode goes on untouched.

        Args:
            obs: {key: array} of one step, with `state` (the class may say what else will do).
            size: height and width, px.

        Raises:
            ValueError: the step does not say how things stood.
        """
        return self._draw(self._recorded(obs), check_size("size", size))

    def close(self) -> None:
        """Frees the GL contexts; the environment stays usable."""
        if "_scene" in self.__dict__:
            self._scene.close()

    def _observe(self, core: Any) -> Observation:
        fields = self._fields(core)
        seen: Observation = {}
        for key in self._obs_keys:
            if key == "image":
                seen[key] = self._draw(self._state(core), self._image_size)
            else:
                seen[key] = (self._state(core) if key == "state" else fields[key]).astype(np.float32)
        return seen

    def _check_state(self, name: str, value: ArrayLike) -> Floats:
        return check_vector(name, value, self._state_size, "as the observation `state` has it")

    def _draw(self, state: Floats, size: int) -> NDArray[np.uint8]:
        if not gl.can_draw():
            raise RuntimeError(f"a picture needs OpenGL, but it does not work here; {gl.INSTALL_HINT}")
        self._set_state(self._stage, state)
        return self._scene.draw(size)

    @cached_property
    def _stage(self) -> Any:
        """Another environment of the package, for pictures: setting a state would disturb the one that runs."""
        core = self._make_core()
        core.model.light_castshadow[:] = 0  # shadows and multisampling cost a software GL fifty times the frame itself
        core.model.mat_reflectance[:] = 0
        core.model.vis.quality.offsamples = 0
        core.model.vis.global_.offwidth = core.model.vis.global_.offheight = 2048  # px: the largest `render_size`
        return core

    @cached_property
    def _scene(self) -> MujocoRenderer:
        return MujocoRenderer(self._stage.model, self._stage.data, self._camera)
