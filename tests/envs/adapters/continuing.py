"""Episodes of experts, and whether a recorded state can be gone on from."""

from typing import Any

import numpy as np


def expert_episode(env: Any, seed: int, most: int = 500) -> tuple[list[np.ndarray], list[np.ndarray], bool]:
    """Returns the states (T + 1) and actions (T) of the expert's episode, and whether it succeeded."""
    obs, info = env.reset(seed=seed)
    expert, states, actions, over = env.unwrapped.make_expert(seed), [obs["state"]], [], False
    while not over and len(actions) < most:
        actions.append(expert(obs, info))
        obs, _, terminated, truncated, info = env.step(actions[-1])
        states.append(obs["state"])
        over = terminated or truncated
    return states, actions, bool(info["is_success"])


def goes_on_bit_by_bit(env: Any, states: list[np.ndarray], actions: list[np.ndarray], start: int) -> None:
    """Asserts that the episode from a recorded state on, after another one, is the recorded one."""
    env.reset(seed=12345)
    env.step(actions[0])
    obs, _ = env.reset(options={"state": states[start]})
    np.testing.assert_array_equal(obs["state"], states[start])
    for action, state in zip(actions[start:], states[start + 1 :], strict=True):
        obs = env.step(action)[0]
        np.testing.assert_array_equal(obs["state"], state)
