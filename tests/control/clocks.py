"""Time that goes forward when it is told, and a policy whose right actions are known: each is the time it is due at."""

import numpy as np

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.policies.chunk import ActionChunk

STEP = 0.1


class Clock:
    """Goes forward by sleeping, and when it is told."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Telling:
    """Reads the time, and predicts for each step the time of that step; what it was asked is kept."""

    def __init__(self, To=2, Ta=4, Tp=8):
        self.obs_spec, self.action_spec = {"now": ObsField("low_dim", (1,))}, ActionSpec((1,))
        self.horizons = Horizons(To, Ta, Tp)
        self.noise_shape = (Tp, 1)
        self.asked = []

    def predict(self, obs, noise):
        self.asked.append((obs, noise))
        steps = np.arange(self.horizons.pred_horizon) - self.horizons.start
        times = obs["now"][:, -1:] + STEP * steps[:, None]  # (B, Tp, 1)
        return ActionChunk.of(times.astype(np.float32), self.horizons)


class Holding(Telling):
    """Obeys what it is told to agree with, and tells the time elsewhere."""

    def predict_guided(self, obs, noise, known):
        free = self.predict(obs, noise).prediction
        weight = known.weight[..., None]
        self.known = known
        return ActionChunk.of(weight * known.actions + (1 - weight) * free, self.horizons)


def seen(time_s):
    return {"now": np.array([time_s], np.float32)}
