"""What adapters to MuJoCo environments share: named observations, states that can be returned to, pictures.

Their own steps leave things in the simulator that no state tells: the solver's last solution, places of sites one
substep old. So after each step the state is rounded to float32 and everything that follows from it computed anew, and
`reset(options={"state": ...})` from any recorded `state` goes on bit by bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self, cast

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.arguments import check_choice, check_obs_keys, check_options, check_size, check_vector
from diffusion_policy_envs.gl import mujoco
from diffusion_policy_envs.rendering import MujocoRenderer

__all__ = ["Floats", "Info", "Observation", "SimulatedEnv"]

Floats = NDArray[np.float64]
Observation = dict[str, NDArray[Any]]
Info = dict[str, Any]

_LARGEST_PICTURE = 2048  # px: what MuJoCo's frame buffer must hold, see `check_size`


class SimulatedEnv(gym.Env[Observation, NDArray[np.float32]], ABC):
    """An environment of others around a MuJoCo model; a subclass says how it begins, steps and what it observes.

    Args:
        model: the compiled model; its shadows, reflections and multisampling are turned off.
        data: its simulation.
        shapes: {key: shape} of the observations beside `state` and `image`.
        extra: how many numbers of `state` are not MuJoCo's.
        camera: that sees `image` and what `render()` returns.
        obs_keys: entries of the observation.
        image_size: height and width of `image`, px.
        render_mode: None or `rgb_array`.
        render_size: height and width of what `render()` returns, px.

    `state` holds qpos, qvel, positions of mocap bodies, ctrl, and the subclass's `extra` numbers.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own type)
    renderer = "mujoco"
    _action_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: Any,
        data: Any,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        extra: int,
        camera: str,
        obs_keys: Sequence[str],
        image_size: int,
        render_mode: str | None,
        render_size: int,
    ) -> None:
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.render_mode = render_mode
        self._image_size = check_size("image_size", image_size)
        self._render_size = check_size("render_size", render_size)
        self._obs_keys = check_obs_keys(obs_keys, (*shapes, "state", "image"))
        self.model, self.data, self._camera, self._extra = model, data, camera, extra
        size = len(self._state())
        spaces: dict[str, gym.Space[Any]] = {
            key: gym.spaces.Box(-np.inf, np.inf, shape, np.float32)
            for key, shape in [*shapes.items(), ("state", (size,))]
        }
        spaces["image"] = gym.spaces.Box(0, 255, (self._image_size, self._image_size, 3), np.uint8)
        self.observation_space = cast(
            "gym.Space[Observation]", gym.spaces.Dict({key: spaces[key] for key in self._obs_keys})
        )
        low = -np.ones(len(self._action_names), np.float32)
        self.action_space = gym.spaces.Box(low, -low)
        _make_cheap(model)

    @property
    def obs_keys(self) -> tuple[str, ...]:
        """The entries of the observation."""
        return self._obs_keys

    @abstractmethod
    def _begin(self) -> None:
        """Starts an episode at random, of `self.np_random` alone."""

    @abstractmethod
    def _advance(self, action: NDArray[np.float32]) -> tuple[float, bool]:
        """Takes one step of the environment's own; returns reward and success."""

    @abstractmethod
    def _numbers(self, key: str) -> ArrayLike:
        """Returns one of the observations named in `shapes`."""

    @abstractmethod
    def _extra_state(self) -> ArrayLike:
        """Returns what an episode depends on that is not MuJoCo's."""

    @abstractmethod
    def _set_extra_state(self, extra: Floats) -> None:
        """Goes back to it, before MuJoCo's part is set."""

    @abstractmethod
    def _twin(self) -> Self:
        """Returns another environment with the same arguments, in which recorded steps are shown."""

    @abstractmethod
    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns a script that solves the task, which reads the simulated state; the same seed acts the same."""

    def _settled(self) -> bool:
        """Brings the environment's own books in line with a state that was set; returns whether it is a success."""
        return False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Starts an episode at random, or from `options["state"]`; see the class."""
        super().reset(seed=seed)
        options = options or {}
        check_options(options, ("state",))
        if options:
            state = self._check_state("options['state']", options["state"])
        else:
            self._begin()
            state = self._state()
        success = self._return_to(state)
        return self._observe(), {"is_success": success}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        """Takes one action; see the class."""
        names = ", ".join(self._action_names)
        vector = check_vector("action", action, len(self._action_names), f"{names}, each in [-1, 1]")
        reward, success = self._advance(np.clip(vector, -1.0, 1.0).astype(np.float32))
        self._settle()
        return self._observe(), reward, success, False, {"is_success": success}

    def render(self) -> NDArray[np.uint8] | None:
        """Returns a picture (render_size, render_size, 3), uint8; None without a render mode."""
        return self._draw(self._render_size) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Frees the GL contexts; the environment stays usable."""
        for each in (self, self.__dict__.get("_shown")):
            if each is not None and "_renderer" in each.__dict__:
                each._renderer.close()

    def observe(self, obs: Mapping[str, ArrayLike]) -> Observation:
        """Returns what this environment would have shown at a recorded step; the episode goes on untouched.

        Args:
            obs: {key: array} of one step, with `state`.

        Raises:
            ValueError: the step holds no state.
        """
        return self._showing(obs)._observe()

    def picture(self, obs: Mapping[str, ArrayLike], size: int) -> NDArray[np.uint8]:
        """Returns a recorded step as `render()` would show it, (size, size, 3), uint8; the episode goes on untouched.

        Args:
            obs: {key: array} of one step, with `state`.
            size: height and width, px.

        Raises:
            ValueError: the step holds no state.
        """
        return self._showing(obs)._draw(check_size("size", size))

    def _draw(self, size: int) -> NDArray[np.uint8]:
        return self._renderer.draw(size)

    @cached_property
    def _renderer(self) -> MujocoRenderer:
        return MujocoRenderer(self.model, self.data, self._camera)

    @cached_property
    def _shown(self) -> Self:
        return self._twin()

    def _showing(self, obs: Mapping[str, ArrayLike]) -> Self:
        if "state" not in obs:
            names = ", ".join(sorted(obs)) or "none"
            raise ValueError(
                f"a recorded step must hold state, but it has {names}; record it with obs_keys=[..., state]"
            )
        state = self._check_state("a recorded state", obs["state"])
        self._shown._return_to(state)
        return self._shown

    def _check_state(self, name: str, value: ArrayLike) -> Floats:
        return check_vector(name, value, len(self._state()), "as the observation `state` has it")

    def _parts(self) -> list[NDArray[Any]]:
        data = self.data
        return [data.qpos, data.qvel, data.mocap_pos.reshape(-1), data.ctrl]

    def _state(self) -> Floats:
        return np.concatenate([*self._parts(), np.asarray(self._extra_state(), np.float64)])

    def _return_to(self, state: Floats) -> bool:
        """Goes to a state; returns whether it is a success."""
        state = state.astype(np.float32).astype(np.float64)
        cut = len(state) - self._extra
        self._set_extra_state(state[cut:])
        mujoco.mj_resetData(self.model, self.data)
        ends = np.cumsum([len(part) for part in self._parts()])
        for part, numbers in zip(self._parts(), np.split(state[:cut], ends[:-1]), strict=True):
            part[:] = numbers  # views of the simulation
        mujoco.mj_forward(self.model, self.data)
        success = self._settled()
        self._settle()
        return success

    def _settle(self) -> None:
        """Rounds the state and computes what follows from it: see the module."""
        for part in self._parts():
            part[:] = part.astype(np.float32)
        self.data.qacc_warmstart[:] = 0.0
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_rnePostConstraint(self.model, self.data)  # forces at the fingers

    def _observe(self) -> Observation:
        return {key: self._observe_key(key) for key in self._obs_keys}

    def _observe_key(self, key: str) -> NDArray[Any]:
        if key == "image":
            return self._draw(self._image_size)
        return np.asarray(self._state() if key == "state" else self._numbers(key), np.float32)


def _make_cheap(model: Any) -> None:
    """Turns off what costs a software GL fifty times the frame itself, and makes room for smooth pictures."""
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0.0
    model.vis.quality.offsamples = 0
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, _LARGEST_PICTURE)
    model.vis.global_.offheight = max(model.vis.global_.offheight, _LARGEST_PICTURE)
