"""An expert for Push-T: it looks, goes round the block, pushes it along a straight line, and looks again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.experts.push_cost import distance
from diffusion_policy_envs.experts.push_model import center_pose
from diffusion_policy_envs.experts.push_search import Push, PushSearch, SearchConfig
from diffusion_policy_envs.pusht.geometry import BOARD_SIZE, Floats
from diffusion_policy_envs.pusht.physics import PushTBoard

__all__ = ["PushTPlanner"]

# How the target moves; the agent follows it 0.2 s behind.
_ACCELERATION = 2000.0  # px/s^2
_BRAKING = 15.0  # 1/s: speed allowed per px that is left
_START_SPEED, _END_SPEED = 100.0, 80.0  # px/s, where a push starts and ends
_AT_START = 15.0  # px: how near its start the agent must be to begin a push
# A push is over when the agent is this near its end, or rests. A looser end would leave short pushes undone and the
# agent nodding at the block: a learned policy nods on for ever.
_AT_END = 1.5  # px
_AT_REST = 3.0  # px/s
_OFF_PLAN = 3.0  # px: how far from the plan the block may be


class PushTPlanner:
    """Plans pushes from the simulated state and leads the agent along them: `action = planner(obs, info)`, every step.

    Its hand is a little unsure: it misses the lines that it plans by chance, sees where that leads and corrects it, so
    that demonstrations show how to recover.

    Args:
        physics: the simulated board, which it only reads.
        seed: the same seed plans the same.
        control_hz: calls per simulated second.
        hand_noise: px, standard deviation of how far a push's start and end lie beside its line, together.
        config: of the search.
    """

    def __init__(
        self,
        physics: PushTBoard,
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
        self._target: Floats = physics.state[:2]
        self._speed = 0.0  # px/s
        self._last_agent: Floats | None = None
        self._pushes: list[Push] = []
        self._legs: list[tuple[Floats, float, float]] = []  # (corner, speed on the way to it, speed there), px/s

    def __call__(self, obs: dict[str, NDArray[Any]], info: dict[str, Any]) -> NDArray[np.float32]:
        """Returns the agent's next target (2,), px."""
        state = self._physics.state
        if not self._legs and self._at_end(state[:2]):
            self._legs = self._next_legs(state)
        self._advance(state[:2])
        self._last_agent = state[:2].copy()
        return self._target.astype(np.float32)

    def _at_end(self, agent: Floats) -> bool:
        resting = self._last_agent is not None and np.linalg.norm(agent - self._last_agent) < _AT_REST * self._dt
        return bool(resting or np.linalg.norm(self._target - agent) < _AT_END)

    def _next_legs(self, state: Floats) -> list[tuple[Floats, float, float]]:
        """Returns the way to the next push and along it; plans anew when the block is not where the plan has it."""
        config, pose = self._search.config, center_pose(state[2:])
        if not self._pushes or distance(pose, self._pushes[0].before) > _OFF_PLAN:
            self._pushes = self._search.pushes(pose, state[:2])
            if not self._pushes:
                return []  # stay, and look again at the next step
        push = self._pushes.pop(0).moved_to(pose)
        along = (push.end - push.start) / np.linalg.norm(push.end - push.start)
        miss = self._hand_noise * self._rng.standard_normal() * np.array([-along[1], along[0]])
        way = self._search.way(pose, state[:2], push.start + miss)
        legs = [(corner, config.travel_speed, config.travel_speed) for corner in way[:-1]]
        return [*legs, (way[-1], config.travel_speed, _START_SPEED), (push.end + miss, config.push_speed, _END_SPEED)]

    def _advance(self, agent: Floats) -> None:
        """Moves the target along the legs for one control step, slower over the last pixels of each."""
        seconds = self._dt
        while seconds > 1e-9 and self._legs:
            corner, speed, end_speed = self._legs[0]
            gap = float(np.linalg.norm(corner - self._target))
            self._speed = min(speed, end_speed + _BRAKING * gap, self._speed + _ACCELERATION * seconds)
            move = min(gap, self._speed * seconds)
            if gap > 0.0:
                self._target = self._target + (corner - self._target) * (move / gap)
            starting = len(self._legs) == 2 and np.linalg.norm(agent - corner) > _AT_START
            if move < gap or starting:
                break
            self._legs.pop(0)
            seconds -= move / self._speed
        self._target = np.clip(self._target, 0.0, BOARD_SIZE)
