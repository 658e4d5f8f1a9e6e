"""A policy that numbers the steps its actions are for: what a controller does with them can be read off."""

from dataclasses import dataclass, field

import numpy as np

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.policies.chunk import ActionChunk

To, Ta, Tp = 3, 4, 8


@dataclass
class StepPolicy:
    """Predicts the number of the step each action is for: the newest observation's value, plus the offset."""

    horizons: Horizons = field(default_factory=lambda: Horizons(To, Ta, Tp))
    obs_spec: dict = field(default_factory=lambda: {"step": ObsField("low_dim", (1,))})
    action_spec: ActionSpec = field(default_factory=lambda: ActionSpec((2,)))
    noise_shape: tuple = (Tp, 2)
    noise_gain: float = 0.0
    obs_seen: list = field(default_factory=list)
    noise_seen: list = field(default_factory=list)

    def predict(self, obs, noise):
        self.obs_seen.append({key: value.copy() for key, value in obs.items()})
        self.noise_seen.append(noise.copy())
        now = obs["step"][:, -1, :1]  # (B, 1)
        steps = now + np.arange(Tp, dtype=np.float32) - self.horizons.start  # (B, Tp)
        prediction = np.repeat(steps[..., None], 2, axis=-1)
        if self.noise_gain:
            prediction = prediction + self.noise_gain * noise
        start = self.horizons.start
        return ActionChunk(actions=prediction[:, start : start + Ta], prediction=prediction)


def at(*steps):
    """An observation of E envs, each at its own step."""
    return {"step": np.array(steps, dtype=np.float32)[:, None]}


def batch_sizes(policy):
    return [len(noise) for noise in policy.noise_seen]
