"""An expert for Push-T: goes round the block, pushes it along a straight line, looks again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.experts.push_model import center_pose
from diffusion_policy_envs.experts.push_search import Push, PushSearch, SearchConfig, distance, moved_along
from diffusion_policy_envs.pusht.geometry import BOARD_SIZE, Floats
from diffusion_policy_envs.pusht.physics import PushTPhysics

__all__ = ["PushTPlanner"]


class PushTPlanner:
    """Plans one push at a time from the simulated state, and leads the agent along it; call it once per control step.

    Args:
        physics: the simulated board, which it only reads.
        seed: the same seed plans the same.
        control_hz: calls per simulated second.
        config: of the search.
    """

    def __init__(
        self,
        physics: PushTPhysics,
        *,
        seed: int,
        control_hz: int = 10,
        hand_noise: float = 2.0,
        config: SearchConfig | None = None,
    ) -> None:
        self._physics = physics
        self._rng = np.random.default_rng(seed)
        self._search = PushSearch(self._rng, config)
        self._hand_noise = hand_noise
        self._dt = 1.0 / control_hz
        self._target: Floats | None = None
        self._legs: list[tuple[Floats, float, float]] = []  # (corner, speed towards it, speed at it), px/s
        self._queue: list[Push] = []
        self._speed = 0.0

    def __call__(self, obs: dict[str, NDArray[Any]], info: dict[str, Any]) -> NDArray[np.float32]:
        """Returns the next target of the agent (2,), px."""
        state = self._physics.state
        if self._target is None:
            self._target = state[:2]
        if not self._legs and np.linalg.norm(self._target - state[:2]) < 5.0:
            self._next_push(state)
        self._advance(state[:2])
        return self._target.astype(np.float32)

    def _next_push(self, state: Floats) -> None:
        config, pose = self._search.config, center_pose(state[2:])
        if not self._queue or distance(pose, self._queue[0].before) > 3.0:
            self.last_plan = self._search.plan(pose, state[:2])
            self._queue = list(self.last_plan.pushes)
        push = moved_along(self._queue.pop(0), pose)
        along = (push.end - push.start) / np.linalg.norm(push.end - push.start)
        aside = np.array([-along[1], along[0]])
        start, end = self._hand_noise * self._rng.standard_normal((2, 1)) * aside + [push.start, push.end]
        way = self._search.way(pose, state[:2], start)
        travel = [(corner, config.travel_speed, config.travel_speed) for corner in way[:-1]]
        self._legs = [*travel, (start, config.travel_speed, 30.0), (end, config.push_speed, 10.0)]

    def _advance(self, agent: Floats) -> None:
        """Moves the target along the legs for one control step, slowing down towards their ends."""
        assert self._target is not None
        left = self._dt
        while left > 1e-9 and self._legs:
            corner, speed, end_speed = self._legs[0]
            gap = float(np.linalg.norm(corner - self._target))
            wanted = min(speed, end_speed + 3.0 * gap)
            self._speed = min(wanted, self._speed + 400.0 * left)
            move = min(gap, self._speed * left)
            self._target = self._target + (corner - self._target) * (move / gap if gap > 0 else 0.0)
            if move < gap:
                break
            if len(self._legs) == 2 and np.linalg.norm(agent - corner) > 7.0:
                break  # line up before the push
            self._legs.pop(0)
            left -= move / max(self._speed, 1e-6)
        self._target = np.clip(self._target, 0.0, BOARD_SIZE)
