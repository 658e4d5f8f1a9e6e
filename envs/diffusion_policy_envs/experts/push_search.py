"""The next straight push towards the goal: a beam search over pushes, each simulated, with the time as cost.

A push starts beside the block, goes in a straight line and stops. From every state of the beam, pushes from all round the
block in several directions are simulated; each is worth the time to get there and to push, plus an estimate of the time
that the block's remaining distance from the goal will take. Letters: S states of the beam, C pushes from one state.
"""

from dataclasses import dataclass

import numpy as np
import shapely

from diffusion_policy_envs.experts.detours import Detours
from diffusion_policy_envs.experts.push_model import MOMENT, center_pose, simulate_pushes
from diffusion_policy_envs.pusht.geometry import (
    BLOCK_OUTLINE,
    BOARD_SIZE,
    CENTER_OF_MASS,
    GOAL_POSE,
    Floats,
    block_points,
    coverage,
)

__all__ = ["Push", "PushSearch", "distance_to_goal"]

_CORNERS = BLOCK_OUTLINE - CENTER_OF_MASS
_GOAL = center_pose(GOAL_POSE)
_WALLS = (12.0, 499.0)  # px: what the block shall stay between; the walls stand at 7 and 504


@dataclass(frozen=True)
class Push:
    """A way to a starting point, and a straight push from there.

    Attributes:
        way: (N, 2), px: corners of the way to the start; the last is the start.
        end: (2,), px: where the push ends.
        seconds: what the search thinks the whole rest takes.
        solves: whether the block then covers the goal.
    """

    way: Floats
    end: Floats
    seconds: float
    solves: bool


@dataclass(frozen=True)
class SearchConfig:
    """What the search tries and what it believes.

    Attributes:
        clearance: px between agent and block while the agent goes round it.
        spacing: px between starting points around the block.
        angles: rad, directions of a push relative to the block's nearest point.
        num_strides: how finely a push's length is chosen.
        beam_width: states kept per level.
        depth: levels, that is pushes looked ahead.
        travel_speed: px/s, of the agent on its way.
        push_speed: px/s.
        push_overhead: s, to slow down and start.
        unsolved_seconds: s, what a state that does not cover the goal costs at least.
        seconds_per_px: s/px, what the block's distance from the goal costs.
        solved_coverage: the coverage to plan for, above the task's own for safety.
    """

    clearance: float = 10.0
    spacing: float = 12.0
    angles: tuple[float, ...] = (-0.7, -0.35, 0.0, 0.35, 0.7)
    num_strides: int = 60
    beam_width: int = 16
    depth: int = 3
    travel_speed: float = 160.0
    push_speed: float = 100.0
    push_overhead: float = 0.3
    unsolved_seconds: float = 2.0
    seconds_per_px: float = 0.035
    solved_coverage: float = 0.965


def distance_to_goal(poses: Floats) -> Floats:
    """Returns the root mean square distance (...), px, of the block's mass from its goal, for poses (..., 3) of it."""
    offset = poses[..., :2] - _GOAL[:2]
    turn = 2.0 * MOMENT * (1.0 - np.cos(poses[..., 2] - _GOAL[2]))
    return np.asarray(np.sqrt(np.sum(offset**2, axis=-1) + turn))


@dataclass
class _Beam:
    """S states: poses (S, 3), agents (S, 2), seconds so far (S,), solved (S,), the first push of each (S, 2, 2)."""

    poses: Floats
    agents: Floats
    seconds: Floats
    solved: np.ndarray
    first: Floats

    def take(self, index: np.ndarray) -> "_Beam":
        return _Beam(self.poses[index], self.agents[index], self.seconds[index], self.solved[index], self.first[index])


class PushSearch:
    """Finds the next push; see the module."""

    def __init__(self, rng: np.random.Generator, config: SearchConfig | None = None) -> None:
        self.config = config or SearchConfig()
        self._rng = rng
        self._detours = Detours(self.config.clearance)

    def next_push(self, pose: Floats, agent: Floats) -> Push:
        """Returns the first push of the quickest sequence found.

        Args:
            pose: (3,), of the block's centre of mass.
            agent: (2,), px.
        """
        starts, directions = self._starts()
        beam = _Beam(pose[None], agent[None], np.zeros(1), np.zeros(1, bool), np.zeros((1, 2, 2)))
        best, best_seconds = beam, np.inf
        for level in range(self.config.depth):
            children = self._expand(beam, starts, directions, first=level == 0)
            total = children.seconds + self._remaining(children)
            order = np.argsort(total, kind="stable")[: self.config.beam_width]
            if total[order[0]] < best_seconds:
                best, best_seconds = children.take(order[:1]), float(total[order[0]])
            beam = children.take(order[~children.solved[order]])
            if not len(beam.seconds):
                break
        start, end = best.first[0]
        local = _to_block(np.stack([agent, start]), pose)
        usable = _on_board(block_points(self._detours.nodes, pose))
        if np.array_equal(start, agent):
            way = agent[None]
        else:
            way = block_points(self._detours.way(local[0], usable, local[1]), pose)
        return Push(way, end, best_seconds, bool(best.solved[0]))

    def _starts(self) -> tuple[Floats, Floats]:
        """Returns starting points and unit directions (C, 2) in the block's frame, shifted by chance along the outline."""
        ring = self._detours.ring
        count = int(ring.length / self.config.spacing)
        along = (np.arange(count) + self._rng.uniform()) * ring.length / count
        points = shapely.get_coordinates(shapely.line_interpolate_point(ring, along % ring.length))
        return _fan(points, np.array(self.config.angles))

    def _expand(self, beam: _Beam, starts: Floats, directions: Floats, first: bool) -> _Beam:
        """Returns every state's pushes, each at its best length, as a beam of S x C."""
        config, num_angles = self.config, len(self.config.angles)
        s = len(beam.seconds)
        nodes = block_points(self._detours.nodes, beam.poses)  # (S, K, 2)
        local = _to_block(beam.agents[:, None], beam.poses)[:, 0]
        travel = self._detours.lengths(local, _on_board(nodes), starts[::num_angles])
        travel = np.repeat(travel, num_angles, axis=1)  # (S, C)
        begin = block_points(starts, beam.poses)  # (S, C, 2)
        heading = block_points(directions, beam.poses * [0, 0, 1])
        travel = np.where(_on_board(begin), travel, np.inf)
        # From where the agent is: to push on in another direction.
        fan = _fan(local, np.array(config.angles))
        here = np.repeat(beam.agents[:, None], num_angles, axis=1)
        turned = np.stack([block_points(f, p * [0, 0, 1]) for f, p in zip(fan[1].reshape(s, -1, 2), beam.poses, strict=True)])
        begin, heading = np.concatenate([begin, here], axis=1), np.concatenate([heading, turned], axis=1)
        near = np.linalg.norm(self._detours.leave(local) - local, axis=-1) > 0
        travel = np.concatenate([travel, np.where(near, 0.0, np.inf)[:, None].repeat(num_angles, 1)], axis=1)
        source, candidate = np.nonzero(np.isfinite(travel))
        begin, heading, travel = begin[source, candidate], heading[source, candidate], travel[source, candidate]

        reach = np.clip(1.5 * distance_to_goal(beam.poses) + 30.0, 45.0, 180.0)[source]
        stride = reach / config.num_strides
        trace = simulate_pushes(beam.poses[source], begin, heading, stride, config.num_strides)  # (T, B, 3)
        pushed = stride * np.arange(1, config.num_strides + 1)[:, None]  # (T, B)
        ends = begin + heading * pushed[..., None]
        seconds = beam.seconds[source] + travel / config.travel_speed + pushed / config.push_speed + config.push_overhead
        solved = self._solved(trace)
        idle = np.abs(trace - beam.poses[source]).max(axis=-1) < 0.01  # a push that does not move the block is none
        total = seconds + self._estimate(trace, solved) + np.where(_on_board(ends) & ~idle, 0.0, np.inf)
        best = np.argmin(total, axis=0)  # (B,)
        column = np.arange(len(best))
        end = ends[best, column]
        seconds_best = np.where(np.isfinite(total[best, column]), seconds[best, column], np.inf)
        start_end = np.stack([begin, end], axis=1) if first else beam.first[source]
        return _Beam(trace[best, column], end, seconds_best, solved[best, column], start_end)

    def _solved(self, poses: Floats) -> np.ndarray:
        solved = distance_to_goal(poses) < 6.0
        close = poses[solved]
        origin = block_points(-CENTER_OF_MASS[None], close)[..., 0, :]
        solved[solved] = coverage(np.concatenate([origin, close[:, 2:]], axis=-1)) > self.config.solved_coverage
        return solved

    def _estimate(self, poses: Floats, solved: np.ndarray) -> Floats:
        config = self.config
        seconds = config.unsolved_seconds + config.seconds_per_px * distance_to_goal(poses)
        return np.where(solved, 0.0, seconds) + 0.1 * _outside(poses)

    def _remaining(self, beam: _Beam) -> Floats:
        return self._estimate(beam.poses, beam.solved)


def _fan(points: Floats, angles: Floats) -> tuple[Floats, Floats]:
    """Returns each point (N, 2) once per angle, and directions from it to the block's nearest point, turned by the angle."""
    block = shapely.Polygon(_CORNERS)
    nearest = shapely.get_coordinates(shapely.shortest_line(shapely.points(points), block)).reshape(-1, 2, 2)[:, 1]
    toward = (nearest - points) / np.maximum(np.linalg.norm(nearest - points, axis=-1, keepdims=True), 1e-9)
    cos, sin = np.cos(angles), np.sin(angles)
    x = toward[:, None, 0] * cos - toward[:, None, 1] * sin  # (N, A)
    y = toward[:, None, 0] * sin + toward[:, None, 1] * cos
    return np.repeat(points, len(angles), axis=0), np.stack([x, y], axis=-1).reshape(-1, 2)


def _to_block(points: Floats, poses: Floats) -> Floats:
    """Returns board points (..., V, 2) in the frame of the block at poses (..., 3)."""
    offset = points - poses[..., None, :2]
    cos, sin = np.cos(poses[..., None, 2]), np.sin(poses[..., None, 2])
    return np.stack([cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], axis=-1)


def _on_board(points: Floats) -> np.ndarray:
    return np.all((points > 2.0) & (points < BOARD_SIZE - 2.0), axis=-1)


def _outside(poses: Floats) -> Floats:
    """Returns by how many px the block leaves the walls, summed over its corners."""
    cos, sin = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    outside = np.zeros(poses.shape[:-1])
    for corner in _CORNERS[[0, 1, 4, 5]]:
        for along in (
            poses[..., 0] + cos * corner[0] - sin * corner[1],
            poses[..., 1] + sin * corner[0] + cos * corner[1],
        ):
            outside += np.maximum(_WALLS[0] - along, 0.0) + np.maximum(along - _WALLS[1], 0.0)
    return outside
