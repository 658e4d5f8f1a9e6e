"""Detour as a Gymnasium environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy_envs.arguments import (
    check_choice,
    check_obs_keys,
    check_options,
    check_size,
    check_vector,
    substeps,
)
from diffusion_policy_envs.board_pictures import RENDERERS, BoardPictures
from diffusion_policy_envs.detour.drawing import draw_table, to_metres, to_pixels
from diffusion_policy_envs.detour.geometry import (
    BEHAVIORS,
    FINISH_Y,
    HALF_WIDTH,
    LENGTH,
    START,
    START_SPREAD,
    Floats,
    ahead,
)
from diffusion_policy_envs.detour.physics import PHYSICS_HZ, DetourPhysics
from diffusion_policy_envs.detour.recorded import recorded_state
from diffusion_policy_envs.detour.route import Route
from diffusion_policy_envs.detour.symmetry import mirror_actions, mirror_observations

__all__ = ["DetourEnv"]

Observation = dict[str, NDArray[Any]]
Info = dict[str, Any]

_OBS_KEYS = ("agent_pos", "pillar", "state", "image")
_OPTIONS = ("state", "route")
_LOW, _HIGH = np.array([-HALF_WIDTH, 0.0]), np.array([HALF_WIDTH, LENGTH])
_MAX_SPEED = 10.0  # m/s, of a start; the controller alone reaches 6
_SLACK = 0.3  # m: how far into a wall the agent gets before the contact is noticed, at most
_UNFINISHED = 0.99  # the largest reward before the finish line


class DetourEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Drive a round agent from a start to a finish line, round pillars, sixteen equally good ways.

    ## Description
    The pillars stand like the pins of a Galton board: four rows of one to four, each pillar in the middle of the way
    that leads from a gap of the row before. So at every row the agent must pass a pillar on the left or on the right,
    and the mean of both ways hits it. All sixteen routes are equally long, and the whole is symmetric about the middle
    line. The table is 1 m wide and 1.2 m long, the agent 4 cm wide, the gaps 16 cm. x is zero on the middle line and
    points right, y is zero at the near edge and points to the finish.

    ## Action space
    `Box([-0.5, 0], [0.5, 1.2], (2,), float32)`: where the agent shall go. A controller accelerates it by
    100 (target - position) - 20 velocity, in m/s^2. Values outside the box are clipped.

    | Num | Action                       | Min  | Max | Unit |
    |-----|------------------------------|------|-----|------|
    | 0   | target of the agent along x  | -0.5 | 0.5 | m    |
    | 1   | target of the agent along y  | 0    | 1.2 | m    |

    ## Observation space
    A `Dict` with the entries named by `obs_keys`:

    | Key         | Shape     | Type    | Unit     | Meaning                                        |
    |-------------|-----------|---------|----------|------------------------------------------------|
    | `agent_pos` | (2,)      | float32 | m        | centre of the agent                            |
    | `pillar`    | (2,)      | float32 | m        | from it to the nearest pillar of the next row, |
    |             |           |         |          | behind all rows to the finish line             |
    | `state`     | (4,)      | float32 | m, m/s   | agent x, y and its velocity along them         |
    | `image`     | (s, s, 3) | uint8   | 0 to 255 | picture from above, s = `image_size`           |

    ## Rewards
    1 on crossing the finish line; before, and on a collision, the share of the way from start to finish line that lies
    behind the agent, along y, in [0, 0.99]. `info` holds `progress` (that share, up to 1), `is_success` (the line was
    crossed), `collided`, `route` (one letter, L or R, for each row behind the agent) and `behavior`: the same, but
    empty until all four rows are behind it. `behaviors` names all sixteen.

    ## Starting state
    The agent rests at (0, 0.1) m, plus at most 1 cm at random in either axis.
    `reset(options={"state": [x, y, vx, vy]})` starts exactly there. How it came there is unknown (`?` in `route`, and
    `behavior` stays empty), unless told: `options={"state": [...], "route": "LR"}`.

    ## Episode end
    Terminated when the agent's centre crosses the finish line, at y = 1.1 m (success), or when it touches a pillar or a
    wall (failure). Truncated by the registered id after 150 steps (15 s).

    ## Arguments
    - `obs_keys`: entries of the observation, of `agent_pos`, `pillar`, `state`, `image`.
    - `control_hz`: actions per second; divides 100.
    - `image_size`: height and width of the observed picture, px.
    - `render_mode`: None or `rgb_array`.
    - `render_size`: height and width of what `render()` returns, px.
    - `renderer`: `mujoco`, `draw2d` (a flat drawing that needs no OpenGL), or None: MuJoCo where it can draw. The
      attribute `renderer` says which one it is.

    ## Expert
    `make_expert(seed)` returns one that takes a route by chance, each as likely: `action = expert(obs, info)`, once per
    step. Routes through the same gap are the same until they part, 14 cm before the next pillar.

    ## Symmetry
    `mirror(obs, action)` returns steps as they look in the mirror x = 0; L and R change places.

    ## Pictures and hands
    `observe(obs)` makes these observations of a recorded step, also those that were not recorded (`dp-render`).
    `picture(obs, size)` draws one, `action_pixels(actions, size)` says where actions lie on the picture,
    `action_at_pixel(xy, size)` which action a place on it is, and `resting_action()` which one leaves the agent where
    it is: so people can look at demonstrations, and give some with a mouse.

    ## Version history
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own type)
    behaviors = BEHAVIORS

    def __init__(
        self,
        obs_keys: Sequence[str] = ("agent_pos", "pillar"),
        control_hz: int = 10,
        image_size: int = 96,
        render_mode: str | None = None,
        render_size: int = 512,
        renderer: str | None = None,
    ) -> None:
        self._substeps = substeps(control_hz, PHYSICS_HZ)
        self.metadata = {**self.metadata, "render_fps": control_hz}
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        check_choice("renderer", renderer, (None, *RENDERERS))
        self.render_mode = render_mode
        self._image_size = check_size("image_size", image_size)
        self._render_size = check_size("render_size", render_size)
        self._pictures = BoardPictures(renderer, DetourPhysics, draw_table, {"top": lambda picture: picture})
        self.physics = DetourPhysics()
        self.action_space = gym.spaces.Box(_LOW.astype(np.float32), _HIGH.astype(np.float32), dtype=np.float32)
        self._obs_keys = check_obs_keys(obs_keys, _OBS_KEYS)
        self.observation_space = self._make_observation_space()
        self._route = Route(*START)

    def _make_observation_space(self) -> gym.Space[Observation]:
        low, high = (_LOW - _SLACK).astype(np.float32), (_HIGH + _SLACK).astype(np.float32)
        fastest = np.full(2, 2 * _MAX_SPEED, np.float32)
        known: dict[str, gym.Space[Any]] = {
            "agent_pos": gym.spaces.Box(low, high, dtype=np.float32),
            "pillar": gym.spaces.Box(-2 * high, 2 * high, dtype=np.float32),
            "state": gym.spaces.Box(np.append(low, -fastest), np.append(high, fastest), dtype=np.float32),
            "image": gym.spaces.Box(0, 255, (self._image_size, self._image_size, 3), np.uint8),
        }
        return cast("gym.Space[Observation]", gym.spaces.Dict({key: known[key] for key in self._obs_keys}))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Starts an episode at random, or from `options["state"]`; see the class."""
        super().reset(seed=seed)
        options = options or {}
        check_options(options, _OPTIONS)
        state = _check_state(options["state"]) if "state" in options else self._random_state()
        self._route = Route(state[0], state[1], options.get("route"))
        self.physics.set_state(state)
        return self._observe(state), self._measure(state)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        """Draws the agent to `action` for 1 / `control_hz` seconds, or until the episode ends; see the class."""
        self.physics.aim(np.clip(check_vector("action", action, 2, "the agent's target in m"), _LOW, _HIGH))
        for _ in range(self._substeps):
            self.physics.step()
            x, y = self.physics.data.qpos
            self._route.advance(x, y)
            if y >= FINISH_Y or self.physics.collided:
                break
        state = self.physics.state
        info = self._measure(state)
        reward = 1.0 if info["is_success"] else min(info["progress"], _UNFINISHED)
        return self._observe(state), reward, info["is_success"] or info["collided"], False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Returns the table as (render_size, render_size, 3), uint8; None without a render mode."""
        return self._pictures.draw(self.physics.state, self._render_size) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Frees the GL contexts; the environment stays usable."""
        self._pictures.close()

    @property
    def renderer(self) -> str:
        """Which renderer draws this environment's pictures: `mujoco` or `draw2d`."""
        return self._pictures.renderer

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns an expert for this environment, which reads its simulated state; the same seed does the same."""
        from diffusion_policy_envs.experts.detour_expert import DetourExpert

        return DetourExpert(self.physics, seed=seed, control_hz=PHYSICS_HZ // self._substeps)

    def mirror(
        self, obs: Mapping[str, NDArray[Any]], action: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Returns the mirror image of steps: an equally good demonstration of the same task.

        Args:
            obs: {key: (N, *shape)}, some of this environment's observations.
            action: (N, 2), m.
        """
        return mirror_observations(obs), mirror_actions(action)

    def observe(self, obs: Mapping[str, ArrayLike]) -> Observation:
        """Returns what this environment would have shown at a recorded step; the episode goes on untouched.

        Args:
            obs: {key: array} of one step with `state`, or with `agent_pos`.

        Raises:
            ValueError: the step does not say where the agent was, or not its velocity where `state` is wanted.
        """
        if "state" in self._obs_keys and "state" not in obs:
            raise ValueError(f"a recorded step must hold state, but it has {', '.join(sorted(obs)) or 'none'}")
        return self._observe(recorded_state(obs))

    def picture(self, obs: Mapping[str, ArrayLike], size: int) -> NDArray[np.uint8]:
        """Returns a recorded step as `render()` would show it, (size, size, 3), uint8; the episode goes on untouched.

        Args:
            obs: {key: array} of one step with `state`, or with `agent_pos`.
            size: height and width, px.

        Raises:
            ValueError: the step does not say where the agent was.
        """
        return self._pictures.draw(recorded_state(obs), check_size("size", size))

    def action_pixels(self, actions: ArrayLike, size: int) -> Floats:
        """Returns where actions (K, 2) lie on a picture of the table, (K, 2), x and y in its px.

        (0, 0) is the outer corner of the first pixel, (size, size) that of the last.
        """
        return to_pixels(actions, size)

    def action_at_pixel(self, xy: ArrayLike, size: int) -> NDArray[np.float32]:
        """Returns the action (2,), within its space, that a place (2,) means: x and y in px of a picture."""
        place = to_metres(check_vector("xy", xy, 2, "x and y in px of the picture"), size)
        return np.clip(place, _LOW, _HIGH).astype(np.float32)

    def resting_action(self) -> NDArray[np.float32]:
        """Returns the action (2,) that asks the agent to be where it is."""
        return self.physics.state[:2].astype(np.float32)

    def _random_state(self) -> Floats:
        start = np.array(START) + self.np_random.uniform(-START_SPREAD, START_SPREAD, 2)
        return np.append(start, [0.0, 0.0])

    def _measure(self, state: Floats) -> Info:
        collided = self.physics.collided
        progress = float(np.clip((state[1] - START[1]) / (FINISH_Y - START[1]), 0.0, 1.0))
        return {
            "progress": progress,
            "is_success": bool(state[1] >= FINISH_Y) and not collided,
            "collided": collided,
            "route": self._route.letters,
            "behavior": self._route.behavior,
        }

    def _observe(self, state: Floats) -> Observation:
        return {key: self._observe_key(key, state) for key in self._obs_keys}

    def _observe_key(self, key: str, state: Floats) -> NDArray[Any]:
        if key == "image":
            return self._pictures.draw(state, self._image_size)
        if key == "pillar":
            return ahead(*state[:2]).astype(np.float32)
        return (state[:2] if key == "agent_pos" else state).astype(np.float32)


def _check_state(value: ArrayLike) -> Floats:
    state = check_vector("options['state']", value, 4, "agent x, y in m, vx, vy in m/s")
    if np.any(state[:2] < _LOW) or np.any(state[:2] > _HIGH):
        raise ValueError(
            f"options['state'] must have x in [-{HALF_WIDTH}, {HALF_WIDTH}] m and y in [0, {LENGTH}] m, but got "
            f"{state[:2]}; scale them to m"
        )
    if np.any(np.abs(state[2:]) > _MAX_SPEED):
        raise ValueError(f"options['state'] must have speeds up to {_MAX_SPEED} m/s, but got {state[2:]}")
    return state
