"""Episodes of the gripper's environments, for their tests."""

from typing import Any

import gymnasium as gym
import numpy as np

PREFIX = "diffusion_policy_envs:"


def make(name: str, **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(PREFIX + name, **kwargs)


def expert_episode(env: gym.Env[Any, Any], seed: int) -> dict[str, Any]:
    """Returns states (N + 1, n), actions (N, 4), rewards (N,) and infos of the expert's episode."""
    obs, info = env.reset(seed=seed)
    expert = env.unwrapped.make_expert(seed)
    states, actions, rewards, infos = [obs["state"]], [], [], [info]
    ended = False
    while not ended:
        actions.append(expert(obs, info))
        obs, reward, terminated, truncated, info = env.step(actions[-1])
        states.append(obs["state"])
        rewards.append(reward)
        infos.append(info)
        ended = terminated or truncated
    return {"state": np.array(states), "action": np.array(actions), "reward": np.array(rewards), "info": infos}
