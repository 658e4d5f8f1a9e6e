"""An agent of stable-baselines3 as the policy that this package's evaluator runs.

Letters: B batch, O numbers of the observation, Da axes of an action.
"""

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.policies.chunk import ActionChunk, Array, FloatArray
from diffusion_policy.rollout.environments import BOX_FIELD


class AgentPolicy:
    """Acts without noise: the mean of an agent's Gaussian, one action at a time.

    Args:
        agent: continuous actions; it may go on learning.
    """

    def __init__(self, agent: BaseAlgorithm) -> None:
        space = agent.action_space
        assert isinstance(space, spaces.Box)  # the replay has refused others
        self._agent = agent
        self.obs_spec = {BOX_FIELD: ObsField("low_dim", tuple(agent.observation_space.shape or ()))}
        self.action_spec = ActionSpec(tuple(space.shape))
        self.horizons = Horizons(1, 1, 1)
        self.noise_shape = (1, *space.shape)

    def predict(self, obs: dict[str, Array], noise: FloatArray | None) -> ActionChunk[Array]:
        """Returns actions (B, 1, *Da) for observations (B, 1, *O); see `ChunkPolicy`."""
        actions, _ = self._agent.predict(obs[BOX_FIELD][:, 0], deterministic=True)
        return ActionChunk.of(np.asarray(actions)[:, None], self.horizons)
