"""Small tables of transitions with known properties."""

from typing import Any

import numpy as np

from diffusion_policy import ReplayBuffer
from diffusion_policy.augment.transitions import Columns, Transitions

COLUMNS = Columns({"pos": (2,), "speed": ()}, (2,))


def table(count: int = 200, seed: int = 0, columns: Columns = COLUMNS) -> Transitions:
    """Returns correlated Gaussian rows; a tenth is terminal."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, columns.size)).astype(np.float32)
    rows[:, columns.next_obs_at] = 0.9 * rows[:, columns.obs_at] + 0.1 * rows[:, columns.next_obs_at]
    rows[:, columns.action_at] = np.clip(rows[:, columns.action_at], -1, 1)
    rows[:, columns.terminal_at] = rng.random(count) < 0.1
    return Transitions(columns, rows)


def buffer(lengths: tuple[int, ...] = (5, 3, 4), ended: tuple[bool, ...] = (True, False, False), **extra: Any) -> Any:
    """Returns episodes whose numbers tell episode and step: pos (episode, step), speed -step, reward 10 + step."""
    made = ReplayBuffer.create()
    for number, (steps, over) in enumerate(zip(lengths, ended, strict=True)):
        at = np.arange(steps)
        last = at == steps - 1
        episode = {
            "pos": np.stack([np.full(steps, number), at], 1).astype(np.float32),
            "speed": -at.astype(np.float32),
            "action": np.stack([at / 10, -at / 10], 1).astype(np.float32),
            "reward": (10 + at).astype(np.float32),
            "terminated": last & over,
            "truncated": last & ~np.bool_(over),
        }
        made.add_episode({**episode, **{key: make(number, steps) for key, make in extra.items()}})
    return made
