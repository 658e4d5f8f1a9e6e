"""MuJoCo environments with scripted experts, registered with Gymnasium by importing this package.

Gymnasium imports it by itself for ids that carry the module's name: `gymnasium.make("diffusion_policy_envs:PushT-v0")`.
Importing it is light: an environment's own modules, and MuJoCo, are imported when one is made.
"""

import gymnasium as gym

__all__: list[str] = []

gym.register(
    id="PushT-v0",
    entry_point="diffusion_policy_envs.pusht.env:PushTEnv",
    max_episode_steps=300,
)
gym.register(
    id="Detour-v0",
    entry_point="diffusion_policy_envs.detour.env:DetourEnv",
    max_episode_steps=150,
)
gym.register(
    id="PickPlace-v0",
    entry_point="diffusion_policy_envs.pickplace.env:PickPlaceEnv",
    max_episode_steps=120,
)
gym.register(
    id="Stack-v0",
    entry_point="diffusion_policy_envs.stack.env:StackEnv",
    max_episode_steps=270,
)
gym.register(
    id="AdroitDoor-v0",
    entry_point="diffusion_policy_envs.adapters.adroit:AdroitDoorEnv",
    max_episode_steps=300,
)
gym.register(
    id="PymunkPushT-v0",
    entry_point="diffusion_policy_envs.adapters.pusht_pymunk:PymunkPushTEnv",
    max_episode_steps=300,
)
gym.register(
    id="Fetch-v0",
    entry_point="diffusion_policy_envs.adapters.fetch:FetchEnv",
    max_episode_steps=50,
)
gym.register(
    id="OGBenchCubeSingle-v0",
    entry_point="diffusion_policy_envs.adapters.ogbench:CubeSingleEnv",
    max_episode_steps=200,
)
gym.register(
    id="OGBenchCubeDouble-v0",
    entry_point="diffusion_policy_envs.adapters.ogbench:CubeDoubleEnv",
    max_episode_steps=500,
)
gym.register(
    id="OGBenchPuzzle3x3-v0",
    entry_point="diffusion_policy_envs.adapters.ogbench:Puzzle3x3Env",
    max_episode_steps=500,
)
gym.register(
    id="MetaWorld-v0",
    entry_point="diffusion_policy_envs.adapters.metaworld:MetaWorldEnv",
    max_episode_steps=500,
)
