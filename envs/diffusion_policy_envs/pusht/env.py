"""Push-T as a Gymnasium environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

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
from diffusion_policy_envs.board_pictures import RENDERERS
from diffusion_policy_envs.pusht.geometry import BOARD_SIZE, KEYPOINTS, Floats, block_points, coverage
from diffusion_policy_envs.pusht.physics import PHYSICS_HZ, PushTBoard, PushTPhysics
from diffusion_policy_envs.pusht.pictures import make_pictures
from diffusion_policy_envs.pusht.recorded import recorded_state
from diffusion_policy_envs.pusht.symmetry import mirror_actions, mirror_observations

__all__ = ["PushTEnv"]

Observation = dict[str, NDArray[Any]]
Info = dict[str, Any]

SUCCESS_COVERAGE = 0.95
_PICTURES = {"image": "top", "tilted": "tilted"}  # observations that cameras see
_OBS_KEYS = ("agent_pos", "keypoints", "state", *_PICTURES)
_OPTIONS = ("state", "agent_velocity")
# Shoved into a wall by the agent, which nothing stops, the block leaves the board by tens of pixels.
_SLACK = 256.0  # px


class PushTEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Push a T-shaped block onto a drawn T with a round agent.

    ## Description
    The block lies on a table and moves only while it is pushed; contacts are without friction. The physics follows the
    original environment (Chi et al., "Diffusion Policy", 2023; there in pymunk) closely enough for its human
    demonstrations to replay: see `benchmarks/pusht_replay.py`. Lengths are pixels of the original 512 px board, angles
    are radians, the origin is the top left corner and y points down.

    ## Action space
    `Box(0, 512, (2,), float32)`: where the agent shall go. A controller accelerates it by 100 (target - position) - 20
    velocity. Values outside the box are clipped.

    | Num | Action                       | Min | Max | Unit |
    |-----|------------------------------|-----|-----|------|
    | 0   | target of the agent along x  | 0   | 512 | px   |
    | 1   | target of the agent along y  | 0   | 512 | px   |

    ## Observation space
    A `Dict` with the entries named by `obs_keys`:

    | Key         | Shape     | Type    | Unit     | Meaning                                                    |
    |-------------|-----------|---------|----------|------------------------------------------------------------|
    | `agent_pos` | (2,)      | float32 | px       | centre of the agent                                        |
    | `keypoints` | (9, 2)    | float32 | px       | nine points of the block, as in the human demonstrations   |
    | `state`     | (5,)      | float32 | px, rad  | agent x, y, block x, y (middle of the bar's outer edge),   |
    |             |           |         |          | angle in [0, 2 pi)                                         |
    | `image`     | (s, s, 3) | uint8   | 0 to 255 | picture from above, s = `image_size`                       |
    | `tilted`    | (s, s, 3) | uint8   | 0 to 255 | picture from a corner, in perspective (MuJoCo's only)      |

    ## Rewards
    clip(coverage / 0.95, 0, 1), where coverage is the share of the drawn T under the block. `info` holds `coverage`,
    `max_coverage` (the episode's, the start included) and `is_success` (coverage > 0.95).

    ## Starting state
    The agent is uniform in [50, 450]^2, the block's position in [100, 400]^2, its angle over the circle, all at rest.
    As in the original, the two may overlap and the block may stand in a wall; it is then pushed out within a second.
    `reset(options={"state": [agent_x, agent_y, block_x, block_y, angle]})` starts exactly there, at rest or, with
    `"agent_velocity": [vx, vy]` (px/s), with a moving agent.

    ## Episode end
    Terminated when coverage > 0.95. Truncated by the registered id after 300 steps (30 s).

    ## Arguments
    - `obs_keys`: entries of the observation, of `agent_pos`, `keypoints`, `state`, `image`, `tilted`.
    - `control_hz`: actions per second; divides 100.
    - `image_size`: height and width of the observed pictures, px; one number, or one for each, {"image": 96, ...}.
    - `render_mode`: None or `rgb_array`.
    - `render_size`: height and width of what `render()` returns, px.
    - `renderer`: `mujoco`, `draw2d` (a flat drawing that needs no OpenGL), or None: MuJoCo where it can draw. The
      attribute `renderer` says which one it is.

    ## Expert
    `make_expert(seed)` returns a planner that solves the task: `action = expert(obs, info)`, once per step.

    ## Symmetry
    `mirror(obs, action)` returns steps as they look in the mirror x + y = 512 px, in which the task is the same.

    ## Pictures and hands
    `observe(obs)` makes these observations of a recorded step, also those that were not recorded (`dp-render`).
    `picture(obs, size)` draws one, `action_pixels(actions, size)` says where actions lie on the picture,
    `action_at_pixel(xy, size)` which action a place on it is, and `resting_action()` which one leaves the agent where
    it is: so people can look at demonstrations, and give some with a mouse.

    ## Version history
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own type)

    def __init__(
        self,
        obs_keys: Sequence[str] = ("keypoints", "agent_pos"),
        control_hz: int = 10,
        image_size: int | Mapping[str, int] = 96,
        render_mode: str | None = None,
        render_size: int = 512,
        renderer: str | None = None,
    ) -> None:
        self._substeps = substeps(control_hz, PHYSICS_HZ)
        self.metadata = {**self.metadata, "render_fps": control_hz}
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        check_choice("renderer", renderer, (None, *RENDERERS))
        self.render_mode = render_mode
        self._image_sizes = check_image_sizes(image_size, tuple(_PICTURES))
        self._render_size = check_size("render_size", render_size)
        self._pictures = make_pictures(renderer)
        self.physics: PushTBoard = PushTPhysics()
        self.action_space = gym.spaces.Box(0.0, BOARD_SIZE, (2,), np.float32)
        self._obs_keys = check_obs_keys(obs_keys, _OBS_KEYS)
        self.observation_space = self._make_observation_space()
        self._max_coverage = 0.0

    def _make_observation_space(self) -> gym.Space[Observation]:
        low, high = -_SLACK, BOARD_SIZE + _SLACK
        state_low = np.array([0, 0, low, low, 0], np.float32)
        state_high = np.array([BOARD_SIZE, BOARD_SIZE, high, high, 2 * np.pi], np.float32)
        known: dict[str, gym.Space[Any]] = {
            "agent_pos": gym.spaces.Box(0.0, BOARD_SIZE, (2,), np.float32),
            "keypoints": gym.spaces.Box(low, high, KEYPOINTS.shape, np.float32),
            "state": gym.spaces.Box(state_low, state_high, dtype=np.float32),
        }
        known |= {key: gym.spaces.Box(0, 255, (size, size, 3), np.uint8) for key, size in self._image_sizes.items()}
        return cast("gym.Space[Observation]", gym.spaces.Dict({key: known[key] for key in self._obs_keys}))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Starts an episode at random, or from `options["state"]`; see the class."""
        super().reset(seed=seed)
        options = options or {}
        check_options(options, _OPTIONS)
        velocity = check_vector("options['agent_velocity']", options.get("agent_velocity", (0.0, 0.0)), 2, "in px/s")
        state = self._check_state(options["state"]) if "state" in options else self._random_state()
        self.physics.set_state(state, velocity)
        self._max_coverage = 0.0
        return self._observe(self.physics.state), self._measure(self.physics.state)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, Info]:
        """Draws the agent to `action` for 1 / `control_hz` seconds; see the class."""
        target = np.clip(check_vector("action", action, 2, "the agent's target in px"), 0.0, BOARD_SIZE)
        self.physics.step(target, self._substeps)
        state = self.physics.state
        info = self._measure(state)
        reward = float(np.clip(info["coverage"] / SUCCESS_COVERAGE, 0.0, 1.0))
        return self._observe(state), reward, info["is_success"], False, info

    def render(self) -> NDArray[np.uint8] | None:
        """Returns the board as (render_size, render_size, 3), uint8; None without a render mode."""
        return self._pictures.draw(self.physics.state, self._render_size) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Frees the GL contexts; the environment stays usable."""
        self._pictures.close()

    @property
    def renderer(self) -> str:
        """Which renderer draws this environment's pictures: `mujoco` or `draw2d`."""
        return self._pictures.renderer

    def make_expert(self, seed: int) -> Callable[[Observation, Info], NDArray[np.float32]]:
        """Returns a planner for this environment, which reads its simulated state; the same seed plans the same."""
        from diffusion_policy_envs.experts.pusht_planner import PushTPlanner

        return PushTPlanner(self.physics, seed=seed, control_hz=PHYSICS_HZ // self._substeps)

    def mirror(
        self, obs: Mapping[str, NDArray[Any]], action: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Returns the mirror image of steps: an equally good demonstration of the same task.

        Args:
            obs: {key: (N, *shape)}, some of this environment's observations.
            action: (N, 2), px.
        """
        return mirror_observations(obs), mirror_actions(action)

    def observe(self, obs: Mapping[str, ArrayLike]) -> Observation:
        """Returns what this environment would have shown at a recorded step; the episode goes on untouched.

        Args:
            obs: {key: array} of one step with `state`, or with `keypoints` (or `keypoint`) and `agent_pos`.

        Raises:
            ValueError: the step does not say how the board looked.
        """
        return self._observe(recorded_state(obs))

    def picture(self, obs: Mapping[str, ArrayLike], size: int) -> NDArray[np.uint8]:
        """Returns a recorded step as `render()` would show it, (size, size, 3), uint8; the episode goes on untouched.

        Args:
            obs: {key: array} of one step with `state`, or with `keypoints` (or `keypoint`) and `agent_pos`.
            size: height and width, px.

        Raises:
            ValueError: the step does not say how the board looked.
        """
        return self._pictures.draw(recorded_state(obs), check_size("size", size))

    def action_pixels(self, actions: ArrayLike, size: int) -> Floats:
        """Returns where actions (K, 2) lie on a picture of the board, (K, 2), x and y in its px.

        (0, 0) is the outer corner of the first pixel, (size, size) that of the last.
        """
        return np.asarray(actions, dtype=np.float64) * (size / BOARD_SIZE)

    def action_at_pixel(self, xy: ArrayLike, size: int) -> NDArray[np.float32]:
        """Returns the action (2,), within its space, that a place (2,) means: x and y in px of a picture."""
        place = check_vector("xy", xy, 2, "x and y in px of the picture")
        return np.clip(place * (BOARD_SIZE / size), 0.0, BOARD_SIZE).astype(np.float32)

    def resting_action(self) -> NDArray[np.float32]:
        """Returns the action (2,) that asks the agent to be where it is."""
        return self.physics.state[:2].astype(np.float32)

    def _random_state(self) -> Floats:
        agent = self.np_random.uniform(50.0, 450.0, 2)
        block = self.np_random.uniform(100.0, 400.0, 2)
        return np.concatenate([agent, block, [self.np_random.uniform(0.0, 2 * np.pi)]])

    def _check_state(self, value: ArrayLike) -> Floats:
        state = check_vector("options['state']", value, 5, "agent_x, agent_y, block_x, block_y in px, angle in rad")
        if np.any(state[:4] < 0.0) or np.any(state[:4] > BOARD_SIZE):
            raise ValueError(
                f"options['state'] must have positions in [0, 512] px, but got {state[:4]}; scale them to px"
            )
        return state

    def _measure(self, state: Floats) -> Info:
        covered = float(coverage(state[2:]))
        self._max_coverage = max(self._max_coverage, covered)
        return {"coverage": covered, "max_coverage": self._max_coverage, "is_success": covered > SUCCESS_COVERAGE}

    def _observe(self, state: Floats) -> Observation:
        return {key: self._observe_key(key, state) for key in self._obs_keys}

    def _observe_key(self, key: str, state: Floats) -> NDArray[Any]:
        if key == "agent_pos":
            return state[:2].astype(np.float32)
        if key == "keypoints":
            return block_points(KEYPOINTS, state[2:]).astype(np.float32)
        if key == "state":
            return state.astype(np.float32)
        return self._pictures.draw(state, self._image_sizes[key], _PICTURES[key])
