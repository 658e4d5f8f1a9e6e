"""An environment with a mirror."""

import gymnasium as gym


class MirroredPoints(gym.Env):
    """Points on a plane that is its own image in the origin."""

    observation_space = gym.spaces.Dict({"pos": gym.spaces.Box(-9, 9, (2,))})
    action_space = gym.spaces.Box(-9, 9, (2,))

    def mirror(self, obs, action):
        return {key: -values for key, values in obs.items()}, -action
