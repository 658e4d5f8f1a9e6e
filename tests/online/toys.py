"""A walk whose episodes end in both ways, and what an agent was given of it."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from diffusion_policy.augment.synther import SamplingConfig, SyntherConfig
from diffusion_policy.models.residual_net import ResidualNetConfig
from diffusion_policy.online import MixedReplayBuffer, RefitConfig
from diffusion_policy.training.loop import LoopConfig

LIMIT, LIFE = 8, 5
TINY = RefitConfig(
    samples=50,
    synther=SyntherConfig(model=ResidualNetConfig(width=16, blocks=1, embed_dim=8), sampling=SamplingConfig(steps=3)),
    loop=LoopConfig(num_grad_steps=8, batch_size=16),
)


class Walk(gym.Env[Any, Any]):
    """x moves by a tenth of the action, which is in [-2, 2]; every other episode terminates after 5 steps.

    Attributes:
        shown: all observations (x, y, t), in the order that they were given.
        lived: (s, a, r, s', terminated) of all steps.
    """

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gym.spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.shown: list[np.ndarray] = []
        self.lived: list[tuple[Any, ...]] = []
        self._episodes = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._episodes += 1
        self.shown.append(np.append(self.np_random.normal(size=2), 0.0))
        return self.shown[-1], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self.shown[-1]
        after = before + np.append(0.1 * action, 1.0)
        terminated = self._episodes % 2 == 0 and after[2] == LIFE
        reward = float(-np.abs(after[:2]).sum())
        self.shown.append(after)
        self.lived.append((before, action / 2, reward, after, terminated))
        return after, reward, terminated, False, {}


def walkers(num_envs: int) -> list[Walk]:
    return [Walk() for _ in range(num_envs)]


def walking_agent(walks: list[Walk], *, ratio: float = 0.5, seed: int = 0, kind: Any = SAC, **settings: Any) -> SAC:
    """An agent that walks; episodes have at most 8 steps."""

    def limited(walk: Walk) -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(walk, LIMIT)

    chosen: dict[str, Any] = {
        "learning_starts": 10,
        "batch_size": 16,
        "buffer_size": 200,
        "gradient_steps": 2,
        "policy_kwargs": {"net_arch": [8]},
        "replay_buffer_class": MixedReplayBuffer,
        "replay_buffer_kwargs": {"ratio": ratio},
    }
    env = DummyVecEnv([lambda walk=walk: limited(walk) for walk in walks])
    return kind("MlpPolicy", env, seed=seed, device="cpu", **{**chosen, **settings})


def stored(agent: SAC) -> dict[str, bytes]:
    """The bytes of the real replay."""
    replay = agent.replay_buffer
    assert replay is not None
    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    return {name: getattr(replay, name).tobytes() for name in names}


def weights(agent: SAC) -> list[torch.Tensor]:
    return list(agent.policy.state_dict().values())
