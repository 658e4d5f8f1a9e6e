"""Toy environments and policies: small enough to know every number by hand.

A module of its own, without torch, so that workers can import it: `plugins=["tests.rollout.toys"]`.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.policies.chunk import ActionChunk

HORIZONS = Horizons(2, 4, 8)


class ChaosEnv(gym.Env):
    """A logistic map pushed by the action: a difference in the last digit becomes another episode.

    Its length depends on the seed, so that episodes that run side by side end at different times.
    """

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 20}
    log: ClassVar[list] = []  # ("reset", seed) | ("render", seed) | ("close", None)

    def __init__(self, render_mode=None, says="is_success", length=60, obs_keys=("pos",), render_size=50):
        self.render_size = render_size
        self.render_mode, self.says, self.length = render_mode, says, length
        every = {"pos": spaces.Box(0, 1, (2,)), "image": spaces.Box(0, 255, (8, 8, 3), np.uint8)}
        self.observation_space = spaces.Dict({key: every[key] for key in obs_keys})
        self.action_space = spaces.Box(-1, 1, (2,))
        self.renderer = "toy"

    def _obs(self):
        image = np.full((8, 8, 3), int(255 * self.pos[0]), np.uint8)
        return {key: {"pos": self.pos.astype(np.float32), "image": image}[key] for key in self.observation_space}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        ChaosEnv.log.append(("reset", seed))
        self.seed = seed
        self.pos = self.np_random.uniform(0.2, 0.8, 2)
        self.left = self.length - self.np_random.integers(0, self.length // 2)
        return self._obs(), {}

    def step(self, action):
        target = np.clip(self.pos + 0.02 * np.asarray(action, np.float64), 0.01, 0.99)
        self.pos = 3.95 * target * (1 - target)
        self.left -= 1
        reward = float(self.pos[0])
        info = {self.says: reward > 0.98} if self.says else {}
        return self._obs(), reward, self.left == 0, False, info

    def render(self):
        if self.render_mode != "rgb_array":
            return None
        ChaosEnv.log.append(("render", self.seed))
        picture = np.zeros((self.render_size, self.render_size, 3), np.uint8)
        picture[:, : int(self.render_size * self.pos[0]), 2] = 255
        return picture

    def close(self):
        ChaosEnv.log.append(("close", None))


class TroubleEnv(ChaosEnv):
    """Chaos with an accident in the episode with seed `seed`, at step `at`; `once` names a file to remember it by."""

    def __init__(self, accident, seed=102, at=5, once=None, **kwargs):
        super().__init__(**kwargs)
        self.accident, self.bad_seed, self.at, self.once = accident, seed, at, once

    def step(self, action):
        self.at_step = getattr(self, "at_step", 0) + 1
        if self.seed == self.bad_seed and self.at_step == self.at and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            if self.accident == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.accident == "exit":
                os._exit(7)
            if self.accident == "hang":
                time.sleep(1000)
            threads = os.environ.get("OMP_NUM_THREADS")
            raise RuntimeError(f"oh dear, {threads} thread, torch {'torch' in sys.modules}")
        return super().step(action)

    def reset(self, **kwargs):
        self.at_step = 0
        return super().reset(**kwargs)


class CountEnv(gym.Env):
    """Rewards 0, 1, 2, ...; succeeds at step `succeeds_at` (for even seeds only, if asked); never terminates."""

    def __init__(self, succeeds_at=None, only_even=False, shape=(1,)):
        self.succeeds_at, self.only_even = succeeds_at, only_even
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.float64)
        self.action_space = spaces.Box(-9, 9, (1,))

    def _obs(self):
        return np.full(self.observation_space.shape, self.count, np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.seed = 0, seed
        return self._obs(), {}

    def step(self, action):
        reward = self.count
        self.count += 1
        won = reward == self.succeeds_at and not (self.only_even and self.seed % 2)
        return self._obs(), reward, False, False, {"success": won} if self.succeeds_at is not None else {}

    def make_expert(self, seed):
        generator = np.random.default_rng(seed)
        return lambda obs, info: np.array([obs[0] + generator.uniform()], np.float32)


class ShyEnv(CountEnv):
    """Counts, and tells of success only when there is one."""

    def step(self, action):
        *stepped, info = super().step(action)
        return *stepped, {key: value for key, value in info.items() if value}


class ToyPolicy:
    """Pushes towards a place that depends on everything it sees and on the noise."""

    def __init__(self, key="pos", shape=(2,), act=(2,)):
        self.obs_spec = {key: ObsField("low_dim", shape)}
        self.action_spec = ActionSpec(act, low=-1, high=1)
        self.horizons = HORIZONS
        self.noise_shape = (HORIZONS.pred_horizon, *act)
        self.batches = []

    def predict(self, obs, noise):
        self.batches.append(len(noise))
        seen = next(iter(obs.values())).reshape(len(noise), -1).mean(axis=1) - 0.5
        prediction = np.sin(3 * noise + seen.reshape(-1, *[1] * (noise.ndim - 1))).astype(np.float32)
        start = HORIZONS.start
        return ActionChunk(prediction[:, start : start + HORIZONS.action_horizon], prediction)


gym.register("toys/Chaos-v0", entry_point=ChaosEnv)
gym.register("toys/Trouble-v0", entry_point=TroubleEnv)
gym.register("toys/Count-v0", entry_point=CountEnv, max_episode_steps=10)
gym.register("toys/Shy-v0", entry_point=ShyEnv, max_episode_steps=10)
gym.register("toys/Discrete-v1", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=10)
