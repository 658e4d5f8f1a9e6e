"""Synthetic transitions while an agent learns in its environment: SynthER's Algorithm 1 around stable-baselines3.

    model = SAC("MlpPolicy", "Pendulum-v1", gradient_steps=20, replay_buffer_class=MixedReplayBuffer)
    model.learn(10_000, callback=SyntheticRefresh(every=1000))

The agent, its loop and its replay are stable-baselines3's; here are the replay that mixes, and what refits a model of
the real transitions every so many environment steps (Lu, Ball, Teh and Parker-Holder 2023, arXiv 2303.06614).

Where this differs from their code, knowingly:
- Actor and entropy coefficient are updated at every gradient step, as stable-baselines3 does; theirs at the last of the
  20 after an environment step.
- Terminals are thresholded at 0.5; their online settings left that out.
- A batch has its synthetic rows as soon as there are any, drawn with replacement.
- The environment goes on from its own observation; until 2026 theirs went on from a synthetic one after each refit.
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
