"""Synthetic transitions while an agent learns in its environment: SynthER's Algorithm 1 around stable-baselines3.

    model = SAC("MlpPolicy", "Pendulum-v1", gradient_steps=20, replay_buffer_class=MixedReplayBuffer)
    model.learn(10_000, callback=SyntheticRefresh(every=1000))

The agent, its loop and its replay are stable-baselines3's; here are the replay that mixes, and what refits a model of
the real transitions every so many environment steps (Lu, Ball, Teh and Parker-Holder 2023, arXiv 2303.06614).
"""

from diffusion_policy.errors import ConfigError

try:
    import stable_baselines3
except ModuleNotFoundError as error:
    raise ConfigError(
        f"diffusion_policy.online needs stable-baselines3, but: {error}; pip install 'diffusion-policy[online]'"
    ) from error

from diffusion_policy.online.mixed_buffer import MixedReplayBuffer
from diffusion_policy.online.refit import PAPER, RefitConfig
from diffusion_policy.online.refresh import SyntheticRefresh

SB3_VERSION: str = stable_baselines3.__version__

__all__ = ["MixedReplayBuffer", "SyntheticRefresh", "RefitConfig", "PAPER", "SB3_VERSION"]
