"""Replays recorded demonstrations: the measure of how closely this physics follows the one they were recorded in."""

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.pusht.geometry import Floats, coverage
from diffusion_policy_envs.pusht.physics import PHYSICS_HZ, PushTBoard

__all__ = ["agent_velocities", "max_coverage", "replay"]

_STIFFNESS, _DAMPING = 100.0, 20.0  # 1/s^2, 1/s: the agent's controller


def agent_velocities(positions: NDArray[np.floating], targets: NDArray[np.floating], control_hz: int = 10) -> Floats:
    """Returns the agent's velocity at every recorded step of one episode; the first is taken as zero.

    Recordings hold no velocities, but nothing slows the agent down, so one step of its controller is a known linear map
    of (position - target, velocity). Two recorded positions and the target between them fix both velocities.

    Args:
        positions: (N, 2), px, before each action.
        targets: (N, 2), px, the actions.
        control_hz: actions per second.

    Returns:
        (N, 2), px/s.
    """
    dt = 1.0 / PHYSICS_HZ
    substep = np.array([[1 - dt * dt * _STIFFNESS, dt - dt * dt * _DAMPING], [-dt * _STIFFNESS, 1 - dt * _DAMPING]])
    step = np.linalg.matrix_power(substep, PHYSICS_HZ // control_hz)  # (2, 2): (error, velocity) -> the same, later
    error = np.asarray(positions[:-1], dtype=np.float64) - targets[:-1]  # (N - 1, 2)
    error_after = np.asarray(positions[1:], dtype=np.float64) - targets[:-1]
    velocity = (error_after - step[0, 0] * error) / step[0, 1]
    velocity_after = step[1, 0] * error + step[1, 1] * velocity
    return np.concatenate([np.zeros((1, 2)), velocity_after])


def replay(
    physics: PushTBoard, state: Floats, velocity: Floats, actions: NDArray[np.floating], control_hz: int = 10
) -> Floats:
    """Returns the states (N, 5) after each of the actions (N, 2), from a state (5,) and an agent's velocity (2,)."""
    physics.set_state(state, velocity)
    states = []
    for action in actions:
        physics.step(action, PHYSICS_HZ // control_hz)
        states.append(physics.state)
    return np.array(states).reshape(-1, 5)


def max_coverage(states: Floats) -> float:
    """Returns the largest coverage among states (N, 5)."""
    return float(np.max(coverage(states[:, 2:])))
