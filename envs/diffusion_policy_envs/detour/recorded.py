"""What a recorded step of Detour says about the table."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy_envs.arguments import check_vector
from diffusion_policy_envs.detour.geometry import Floats

__all__ = ["recorded_state"]


def recorded_state(obs: Mapping[str, ArrayLike]) -> Floats:
    """Returns the state (4,) of one recorded step: agent x, y in m, vx, vy in m/s.

    Args:
        obs: {key: array} of one step, with `state` (4,), or with `agent_pos` (2,), to which no speed is known: zero
            stands for it. Whatever else it holds is ignored.

    Raises:
        ValueError: it holds neither, or in other shapes, or numbers that are not finite.
    """
    if "state" in obs:
        return check_vector("a recorded state", obs["state"], 4, "agent x, y in m, vx, vy in m/s")
    if "agent_pos" in obs:
        return np.append(check_vector("a recorded agent_pos", obs["agent_pos"], 2, "agent x, y in m"), [0.0, 0.0])
    names = ", ".join(sorted(obs)) or "none"
    raise ValueError(f"a recorded step must hold state or agent_pos, but it has {names}; record one of these")
