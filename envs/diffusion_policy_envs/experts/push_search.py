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
    wrap_angle,
)

__all__ = ["Plan", "Push", "PushSearch", "SearchConfig", "distance", "moved_along"]

_CORNERS = BLOCK_OUTLINE - CENTER_OF_MASS
_GOAL = center_pose(GOAL_POSE)
_WALLS = (12.0, 499.0)  # px: what the block shall stay between; the walls stand at 7 and 504


@dataclass(frozen=True)
class Push:
    """A straight push.

    Attributes:
        start: (2,), px: where the agent begins, beside the block.
        end: (2,), px: where it stops.
        before: (3,): the pose of the block's centre of mass that the push was planned for.
        after: (3,): the pose that it should have afterwards.
    """

    start: Floats
    end: Floats
    before: Floats
    after: Floats


@dataclass(frozen=True)
class Plan:
    """Pushes, how long they should take in all with what is left after them, and whether they cover the goal."""

    pushes: tuple[Push, ...]
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
        least_motion: px that a push must move the block, unless it solves the task.
        reach: px, the longest push.
        offset: px, by how much a push may miss its line: those that a miss spoils are avoided.
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
    unsolved_seconds: float = 4.0
    seconds_per_px: float = 0.06
    solved_coverage: float = 0.965
    least_motion: float = 3.0
    reach: float = 120.0
    offset: float = 4.0


def distance(poses: Floats, others: Floats) -> Floats:
    """Returns how far apart (...), px, poses (..., 3) of the centre of mass are, a turn counting as its mass's mean way.

    The turn counts along the arc: along the chord, half a turn would be flat, and pushes that begin to undo it worthless.
    """
    offset = poses[..., :2] - others[..., :2]
    turn = MOMENT * wrap_angle(poses[..., 2] - others[..., 2]) ** 2
    return np.asarray(np.sqrt(np.sum(offset**2, axis=-1) + turn))


@dataclass
class _Beam:
    """S states: poses (S, 3), agents (S, 2), seconds so far (S,), solved (S,), the pushes so far, start and end and block before and after
    each, (S, level, 10).
    """

    poses: Floats
    agents: Floats
    seconds: Floats
    solved: np.ndarray
    pushes: Floats

    def take(self, index: np.ndarray) -> "_Beam":
        return _Beam(self.poses[index], self.agents[index], self.seconds[index], self.solved[index], self.pushes[index])


class PushSearch:
    """Finds the next push; see the module."""

    def __init__(self, rng: np.random.Generator, config: SearchConfig | None = None) -> None:
        self.config = config or SearchConfig()
        self._rng = rng
        self._detours = Detours(self.config.clearance)

    def plan(self, pose: Floats, agent: Floats) -> Plan:
        """Returns the quickest sequence of pushes found.

        Args:
            pose: (3,), of the block's centre of mass.
            agent: (2,), px.
        """
        starts, directions = self._starts()
        beam = _Beam(pose[None], agent[None], np.zeros(1), np.zeros(1, bool), np.zeros((1, 0, 10)))
        best, best_seconds = beam, np.inf
        for level in range(self.config.depth):
            children = self._expand(beam, starts, directions)
            children, total = self._most_promising(children)
            ends = children.solved | (level == self.config.depth - 1)
            if np.any(ends) and total[ends].min() < best_seconds:
                best, best_seconds = children.take(np.flatnonzero(ends)[[np.argmin(total[ends])]]), total[ends].min()
            beam = children.take(np.flatnonzero(~children.solved))
            if not len(beam.seconds):
                break
        pushes = tuple(Push(p[0:2], p[2:4], p[4:7], p[7:10]) for p in best.pushes[0])
        return Plan(pushes, float(best_seconds), bool(best.solved[0]))

    def way(self, pose: Floats, agent: Floats, start: Floats) -> Floats:
        """Returns the corners (N, 2) of the shortest way round the block to a push's start, which is the last."""
        source, target = _to_block(np.stack([agent, start]), pose)
        if np.linalg.norm(target - source) < 1.0:
            return start[None]
        usable = _on_board(block_points(self._detours.nodes, pose))
        return block_points(self._detours.way(source, usable, target), pose)

    def _starts(self) -> tuple[Floats, Floats]:
        """Returns starting points and unit directions (C, 2) in the block's frame, shifted by chance along the outline."""
        ring = self._detours.ring
        count = int(ring.length / self.config.spacing)
        along = (np.arange(count) + self._rng.uniform()) * ring.length / count
        points = shapely.get_coordinates(shapely.line_interpolate_point(ring, along % ring.length))
        return _fan(points, np.array(self.config.angles))

    def _expand(self, beam: _Beam, starts: Floats, directions: Floats) -> _Beam:
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
        turned = np.stack(
            [block_points(f, p * [0, 0, 1]) for f, p in zip(fan[1].reshape(s, -1, 2), beam.poses, strict=True)]
        )
        begin, heading = np.concatenate([begin, here], axis=1), np.concatenate([heading, turned], axis=1)
        near = np.linalg.norm(self._detours.leave(local) - local, axis=-1) > 0
        travel = np.concatenate([travel, np.where(near, 0.0, np.inf)[:, None].repeat(num_angles, 1)], axis=1)
        source, candidate = np.nonzero(np.isfinite(travel))
        begin, heading, travel = begin[source, candidate], heading[source, candidate], travel[source, candidate]

        reach = np.clip(1.5 * distance(beam.poses, _GOAL) + 30.0, 45.0, config.reach)[source]
        stride = reach / config.num_strides
        trace = simulate_pushes(beam.poses[source], begin, heading, stride, config.num_strides)  # (T, B, 3)
        pushed = stride * np.arange(1, config.num_strides + 1)[:, None]  # (T, B)
        ends = begin + heading * pushed[..., None]
        seconds = (
            beam.seconds[source] + travel / config.travel_speed + pushed / config.push_speed + config.push_overhead
        )
        solved = self._solved(trace)
        # A push that hardly moves the block is none: the beam would spend its levels on such.
        idle = (distance(trace, beam.poses[source]) < config.least_motion) & ~solved
        total = seconds + self._estimate(trace, solved) + np.where(_on_board(ends) & ~idle, 0.0, np.inf)
        best = np.argmin(total, axis=0)  # (B,)
        column = np.arange(len(best))
        end = ends[best, column]
        seconds_best = np.where(np.isfinite(total[best, column]), seconds[best, column], np.inf)
        after = trace[best, column]
        push = np.concatenate([begin, end, beam.poses[source], after], axis=1)[:, None]  # (B, 1, 10)
        pushes = np.concatenate([beam.pushes[source], push], axis=1)
        return _Beam(after, end, seconds_best, solved[best, column], pushes)

    def _most_promising(self, beam: _Beam) -> tuple[_Beam, Floats]:
        """Returns the best states of a beam and their expected total seconds, had their last push missed its line."""
        config = self.config
        total = beam.seconds + self._estimate(beam.poses, beam.solved)
        beam = beam.take(np.argsort(total, kind="stable")[: 6 * config.beam_width])
        push = beam.pushes[:, -1]
        along = push[:, 2:4] - push[:, 0:2]
        length = np.linalg.norm(along, axis=-1)
        along = along / length[:, None]
        aside = np.stack([-along[:, 1], along[:, 0]], axis=-1)
        total = beam.seconds + self._estimate(beam.poses, beam.solved)
        for offset in (-config.offset, config.offset):
            poses = simulate_pushes(
                push[:, 4:7], push[:, 0:2] + offset * aside, along, length / config.num_strides, config.num_strides
            )[-1]
            total += beam.seconds + self._estimate(poses, self._solved(poses))
        total /= 3.0
        order = np.argsort(total, kind="stable")[: config.beam_width]
        return beam.take(order), total[order]

    def _solved(self, poses: Floats) -> np.ndarray:
        solved = distance(poses, _GOAL) < 6.0
        close = poses[solved]
        origin = block_points(-CENTER_OF_MASS[None], close)[..., 0, :]
        solved[solved] = coverage(np.concatenate([origin, close[:, 2:]], axis=-1)) > self.config.solved_coverage
        return solved

    def _estimate(self, poses: Floats, solved: np.ndarray) -> Floats:
        config = self.config
        seconds = config.unsolved_seconds + config.seconds_per_px * distance(poses, _GOAL)
        return np.where(solved, 0.0, seconds) + 0.1 * _outside(poses)


def _fan(points: Floats, angles: Floats) -> tuple[Floats, Floats]:
    """Returns each point (N, 2) once per angle, and directions from it to the block's nearest point, turned by the angle."""
    block = shapely.Polygon(_CORNERS)
    nearest = shapely.get_coordinates(shapely.shortest_line(shapely.points(points), block)).reshape(-1, 2, 2)[:, 1]
    toward = (nearest - points) / np.maximum(np.linalg.norm(nearest - points, axis=-1, keepdims=True), 1e-9)
    cos, sin = np.cos(angles), np.sin(angles)
    x = toward[:, None, 0] * cos - toward[:, None, 1] * sin  # (N, A)
    y = toward[:, None, 0] * sin + toward[:, None, 1] * cos
    return np.repeat(points, len(angles), axis=0), np.stack([x, y], axis=-1).reshape(-1, 2)


def moved_along(push: Push, pose: Floats) -> Push:
    """Returns the push as it would be had it been planned for a slightly different pose (3,) of the block."""
    points = block_points(_to_block(np.stack([push.start, push.end]), push.before), pose)
    return Push(points[0], points[1], pose, push.after)


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
