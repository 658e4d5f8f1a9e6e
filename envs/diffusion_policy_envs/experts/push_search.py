"""The next pushes towards the goal: a beam search over straight pushes, each simulated, with time as the cost.

A push starts beside the block, goes in a straight line and stops. From every state of the beam, pushes from all round
the block in several directions are simulated; each costs the time to get there and to push, and an estimate of what is
left to do. The best of them are judged again as if they had missed their line by some pixels: what survives that is
what a hand, or a learned policy, can repeat.

Letters: S states of the beam, C starts round the block, A directions, B pushes, T strides, L pushes so far.
"""

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from diffusion_policy_envs.experts.detours import Detours
from diffusion_policy_envs.experts.push_cost import GOAL, TimeToGo, distance
from diffusion_policy_envs.experts.push_model import simulate_pushes, to_block
from diffusion_policy_envs.pusht.geometry import BLOCK_OUTLINE, BOARD_SIZE, CENTER_OF_MASS, Floats, block_points

__all__ = ["Push", "PushSearch", "SearchConfig"]

_BLOCK = shapely.Polygon(BLOCK_OUTLINE - CENTER_OF_MASS)


@dataclass(frozen=True)
class Push:
    """A straight push.

    Attributes:
        start: (2,), px: where the agent begins, beside the block.
        end: (2,), px: where it stops.
        before: (3,): the pose of the block's centre of mass that the push was planned for.
    """

    start: Floats
    end: Floats
    before: Floats

    def moved_to(self, pose: Floats) -> "Push":
        """Returns the push as it is, seen from the block, for another pose (3,) of the block."""
        start, end = block_points(to_block(np.stack([self.start, self.end]), self.before), pose)
        return Push(start, end, pose)


@dataclass(frozen=True)
class SearchConfig:
    """What the search tries and what it believes.

    Attributes:
        clearance: px between agent and block while the agent goes round it.
        spacing: px between starting points round the block.
        angles: rad, directions of a push relative to the block's nearest point.
        reach: px, the longest push.
        num_strides: how finely a push's length is chosen.
        least_motion: px that a push must move the block, unless it solves the task.
        miss: px, by how much a push may miss its line.
        beam_width: states kept per level.
        depth: levels, that is pushes looked ahead.
        travel_speed: px/s, of the agent on its way.
        push_speed: px/s.
        overhead: s per push, to slow down and start.
        to_go: what is left to do after the last push.
    """

    clearance: float = 10.0
    spacing: float = 12.0
    angles: tuple[float, ...] = (-0.7, -0.35, 0.0, 0.35, 0.7)
    reach: float = 120.0
    num_strides: int = 60
    least_motion: float = 5.0
    miss: float = 4.0
    beam_width: int = 16
    depth: int = 3
    travel_speed: float = 160.0
    push_speed: float = 100.0
    overhead: float = 0.5
    to_go: TimeToGo = field(default_factory=TimeToGo)


@dataclass(frozen=True)
class _Beam:
    """S states: block (S, 3), agent (S, 2), seconds so far (S,), solved (S,), pushes (S, L, 7): start, end, before."""

    poses: Floats
    agents: Floats
    seconds: Floats
    solved: NDArray[np.bool_]
    pushes: Floats

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "_Beam":
        return _Beam(self.poses[index], self.agents[index], self.seconds[index], self.solved[index], self.pushes[index])


class PushSearch:
    """Searches for pushes, from starts that chance shifts along the block's outline; see the module."""

    def __init__(self, rng: np.random.Generator, config: SearchConfig | None = None) -> None:
        self.config = config or SearchConfig()
        self._rng = rng
        self._detours = Detours(self.config.clearance)

    def pushes(self, pose: Floats, agent: Floats) -> list[Push]:
        """Returns the quickest sequence of pushes found: one that solves the task, or as many as are looked ahead.

        An empty list where nothing can be pushed, as when the agent starts within the block and has yet to drift out.

        Args:
            pose: (3,), of the block's centre of mass.
            agent: (2,), px.
        """
        starts = self._starts()
        beam = _Beam(pose[None], agent[None], np.zeros(1), np.zeros(1, bool), np.zeros((1, 0, 7)))
        best, best_seconds = beam, np.inf
        for level in range(self.config.depth):
            children, seconds = self._most_promising(self._expand(beam, starts))
            ends = np.flatnonzero(children.solved | (level == self.config.depth - 1))
            if len(ends) and seconds[ends].min() < best_seconds:
                best, best_seconds = children.take(ends[[np.argmin(seconds[ends])]]), seconds[ends].min()
            beam = children.take(~children.solved)
            if not len(beam.seconds):
                break
        return [Push(push[0:2], push[2:4], push[4:7]) for push in best.pushes[0]]

    def way(self, pose: Floats, agent: Floats, start: Floats) -> Floats:
        """Returns the corners (N, 2) of the shortest way round the block to a push's start, which is the last."""
        source, target = to_block(np.stack([agent, start]), pose)
        if np.linalg.norm(target - source) < 1.0:
            return start[None]
        usable = _on_board(block_points(self._detours.nodes, pose))
        return block_points(self._detours.way(source, usable, target), pose)

    def _starts(self) -> Floats:
        """Returns points (C, 2) round the block, in its frame."""
        ring = self._detours.ring
        count = int(ring.length / self.config.spacing)
        along = (np.arange(count) + self._rng.uniform()) * ring.length / count
        return np.asarray(shapely.get_coordinates(shapely.line_interpolate_point(ring, along)))

    def _candidates(self, beam: _Beam, starts: Floats) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
        """Returns each push's state (B,), start (B, 2), direction (B, 2) and px of travel to the start (B,).

        Beside the starts round the block there is the agent's own place, where it can push on in another direction.
        """
        agents = to_block(beam.agents[:, None], beam.poses)[:, 0]  # (S, 2)
        on_board = _on_board(block_points(self._detours.nodes, beam.poses)), _on_board(block_points(starts, beam.poses))
        travel = np.where(on_board[1], self._detours.lengths(agents, on_board[0], starts), np.inf)  # (S, C)
        beside = np.linalg.norm(self._detours.leave(agents) - agents, axis=-1) > 0
        travel = np.concatenate([travel, np.where(beside, 0.0, np.inf)[:, None]], axis=1)  # (S, C + 1)
        every_start = np.concatenate([np.broadcast_to(starts, (len(agents), *starts.shape)), agents[:, None]], axis=1)
        source, which = np.nonzero(np.isfinite(travel))
        fan = _fan(every_start[source, which], np.array(self.config.angles))  # (B / A, A, 2)
        source, which = np.repeat(source, fan.shape[1]), np.repeat(which, fan.shape[1])
        poses = beam.poses[source]
        start = _to_board(every_start[source, which], poses)
        direction = _to_board(fan.reshape(-1, 2), poses * [0.0, 0.0, 1.0])
        return source, start, direction, travel[source, which]

    def _expand(self, beam: _Beam, starts: Floats) -> _Beam:
        """Returns every state's pushes, each at its best length, as a beam of B states."""
        config = self.config
        source, start, direction, travel = self._candidates(beam, starts)
        before = beam.poses[source]
        reach = np.clip(1.5 * distance(before, GOAL) + 30.0, 45.0, config.reach)  # shorter and finer near the goal
        stride = reach / config.num_strides
        trace = simulate_pushes(before, start, direction, stride, config.num_strides)  # (T, B, 3)
        length = stride * np.arange(1, config.num_strides + 1)[:, None]  # (T, B)
        ends = start + direction * length[..., None]
        seconds = beam.seconds[source] + travel / config.travel_speed + length / config.push_speed + config.overhead
        solved = config.to_go.solved(trace)
        # A push that hardly moves the block is none: the beam would spend its levels on such.
        futile = (distance(trace, before) < config.least_motion) & ~solved | ~_on_board(ends)
        seconds[futile] = np.inf
        best = np.argmin(seconds + config.to_go.seconds(trace, solved), axis=0), np.arange(len(source))
        pushes = np.concatenate([start, ends[best], before], axis=1)[:, None]  # (B, 1, 7)
        pushes = np.concatenate([beam.pushes[source], pushes], axis=1)
        beam = _Beam(trace[best], ends[best], seconds[best], solved[best], pushes)
        return beam.take(np.isfinite(beam.seconds))

    def _most_promising(self, beam: _Beam) -> tuple[_Beam, Floats]:
        """Returns the best states of a beam and their seconds in all: the mean of hitting and missing the line."""
        config = self.config
        hit = beam.seconds + config.to_go.seconds(beam.poses, beam.solved)
        order = np.argsort(hit, kind="stable")[: 6 * config.beam_width]
        # An agent whose centre is within the block has no direction to push in: such pushes have no length.
        order = order[np.any(beam.pushes[order, -1, 2:4] != beam.pushes[order, -1, 0:2], axis=-1)]
        beam, total = beam.take(order), hit[order] / 3.0
        push = beam.pushes[:, -1]
        along = push[:, 2:4] - push[:, 0:2]
        length = np.linalg.norm(along, axis=-1)
        along = along / length[:, None]
        aside = np.stack([-along[:, 1], along[:, 0]], axis=-1)
        for miss in (-config.miss, config.miss):
            start, stride = push[:, 0:2] + miss * aside, length / config.num_strides
            poses = simulate_pushes(push[:, 4:7], start, along, stride, config.num_strides)[-1]
            total += (beam.seconds + config.to_go.seconds(poses, config.to_go.solved(poses))) / 3.0
        order = np.argsort(total, kind="stable")[: config.beam_width]
        return beam.take(order), total[order]


def _fan(points: Floats, angles: Floats) -> Floats:
    """Returns unit vectors (N, A, 2) from points (N, 2) to the block's nearest point, turned by angles (A,)."""
    to_nearest = shapely.get_coordinates(shapely.shortest_line(shapely.points(points), _BLOCK)).reshape(-1, 2, 2)
    toward = to_nearest[:, 1] - points
    toward = toward / np.maximum(np.linalg.norm(toward, axis=-1, keepdims=True), 1e-9)
    cos, sin = np.cos(angles), np.sin(angles)
    x = toward[:, None, 0] * cos - toward[:, None, 1] * sin
    y = toward[:, None, 0] * sin + toward[:, None, 1] * cos
    return np.stack([x, y], axis=-1)


def _to_board(points: Floats, poses: Floats) -> Floats:
    """Returns points (B, 2), each of the frame of its own block at poses (B, 3), as points of the board."""
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    x = poses[:, 0] + cos * points[:, 0] - sin * points[:, 1]
    y = poses[:, 1] + sin * points[:, 0] + cos * points[:, 1]
    return np.stack([x, y], axis=-1)


def _on_board(points: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.all((points > 2.0) & (points < BOARD_SIZE - 2.0), axis=-1))
