"""What a straight push does to the block, for thousands of pushes at once.

A quasi-static block moves along the motion that costs least in the metric (mass, moment) among those that keep it out
of the agent, and its path does not depend on the agent's speed. So the agent is advanced in small strides, and after
each one the overlap with either of the block's two boxes is undone along that contact's cheapest motion. The MuJoCo
model follows the same law: pushes of 100 px end 0.25 px from it (median), at a small part of its cost.

Letters: B pushes, T strides. Poses here are (x, y, angle) of the centre of mass, not of the block's origin.
"""

import numpy as np

from diffusion_policy_envs.pusht.geometry import AGENT_RADIUS, CENTER_OF_MASS, Floats

__all__ = ["MOMENT", "center_pose", "origin_pose", "simulate_pushes", "to_block"]

MOMENT = 3000.0  # px^2: the block's moment of inertia over its mass

# Centres and half sizes of bar and stem, relative to the centre of mass, px.
_BOXES = (((0.0, -30.0), (60.0, 15.0)), ((0.0, 30.0), (15.0, 45.0)))


def center_pose(pose: Floats) -> Floats:
    """Returns the pose (..., 3) of the centre of mass for a pose (..., 3) of the block's origin."""
    lever = CENTER_OF_MASS[1]
    x, y = pose[..., 0] - np.sin(pose[..., 2]) * lever, pose[..., 1] + np.cos(pose[..., 2]) * lever
    return np.stack([x, y, pose[..., 2]], axis=-1)


def origin_pose(pose: Floats) -> Floats:
    """Returns the pose (..., 3) of the block's origin for a pose (..., 3) of the centre of mass."""
    lever = CENTER_OF_MASS[1]
    x, y = pose[..., 0] + np.sin(pose[..., 2]) * lever, pose[..., 1] - np.cos(pose[..., 2]) * lever
    return np.stack([x, y, pose[..., 2]], axis=-1)


def to_block(points: Floats, poses: Floats) -> Floats:
    """Returns points (..., V, 2) of the board in the frames of blocks at poses (..., 3): undoes `block_points`."""
    offset = points - poses[..., None, :2]
    cos, sin = np.cos(poses[..., None, 2]), np.sin(poses[..., None, 2])
    return np.stack([cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], axis=-1)


def simulate_pushes(poses: Floats, agents: Floats, directions: Floats, stride: Floats, num_strides: int) -> Floats:
    """Returns the block's poses while the agent moves in a straight line.

    Args:
        poses: (B, 3), px, px, rad.
        agents: (B, 2), where the agents start, px.
        directions: (B, 2), unit vectors.
        stride: (B,), px per stride; about 2 px keeps the error small.
        num_strides: T.

    Returns:
        (T, B, 3): poses after each stride.
    """
    x, y, angle = poses.T.copy()
    agent_x, agent_y = agents.T.copy()
    step_x, step_y = (directions * stride[:, None]).T
    trace = np.empty((num_strides, len(poses), 3))
    for t in range(num_strides):
        agent_x += step_x
        agent_y += step_y
        for center, half in _BOXES:
            _undo_overlap((x, y, angle), agent_x, agent_y, center, half)
        trace[t, :, 0], trace[t, :, 1], trace[t, :, 2] = x, y, angle
    return trace


def _undo_overlap(
    pose: tuple[Floats, Floats, Floats],
    agent_x: Floats,
    agent_y: Floats,
    center: tuple[float, float],
    half: tuple[float, float],
) -> None:
    """Moves the blocks (x, y, angle), each (B,), in place, out of the agents, as far as one box is concerned."""
    x, y, angle = pose
    cos, sin = np.cos(angle), np.sin(angle)
    gap_x, gap_y = agent_x - x, agent_y - y
    local_x, local_y = cos * gap_x + sin * gap_y, cos * gap_y - sin * gap_x  # the agent in the block's frame
    # Nearest point of the box; an agent whose centre is inside is not a case that a push from outside meets.
    near_x = np.clip(local_x, center[0] - half[0], center[0] + half[0])
    near_y = np.clip(local_y, center[1] - half[1], center[1] + half[1])
    normal_x, normal_y = local_x - near_x, local_y - near_y
    distance = np.maximum(np.hypot(normal_x, normal_y), 1e-9)
    overlap = np.maximum(AGENT_RADIUS - distance, 0.0)
    normal_x /= distance
    normal_y /= distance
    lever = near_x * normal_y - near_y * normal_x
    impulse = overlap / (1.0 + lever * lever / MOMENT)
    x -= impulse * (cos * normal_x - sin * normal_y)
    y -= impulse * (sin * normal_x + cos * normal_y)
    angle -= impulse * lever / MOMENT
