"""A replay that mixes: exact shares, and real transitions as the environment gave them."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, of the extra online")

from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.online import MixedReplayBuffer, SyntheticRefresh
from tests.online.toys import LIFE, LIMIT, TINY, Walk, stored, walkers, walking_agent

MARK = 1000.0  # a reward that no real transition has


def filled(ratio: float, num_envs: int = 1, real: int = 40) -> MixedReplayBuffer:
    agent = walking_agent(walkers(num_envs), ratio=ratio, learning_starts=real)
    agent.learn(real)
    assert isinstance(agent.replay_buffer, MixedReplayBuffer)
    return agent.replay_buffer


def marked(replay: MixedReplayBuffer, rows: int = 9) -> Transitions:
    table = replay.real_transitions().rows[:rows].copy()
    table[:, replay.columns.reward_at] = MARK
    return Transitions(replay.columns, table)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.875])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_share_of_synthetic_rows_is_exactly_the_ratio(ratio: float, batch_size: int) -> None:
    replay = filled(ratio)
    assert not (replay.sample(batch_size).rewards == MARK).any()  # as long as there are none
    replay.replace_synthetic(marked(replay))
    for _ in range(20):
        batch = replay.sample(batch_size)
        assert len(batch.rewards) == batch_size
        assert int((batch.rewards == MARK).sum()) == round(ratio * batch_size)


def test_synthetic_rows_leave_the_real_ones_as_they_are() -> None:
    agent = walking_agent(walkers(2))
    agent.learn(30)
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    before, size = stored(agent), replay.size()
    for _ in range(2):
        replay.replace_synthetic(marked(replay))
        replay.sample(16)
    assert stored(agent) == before
    assert (replay.size(), replay.num_real, replay.num_synthetic) == (size, 2 * size, 9)


@pytest.mark.parametrize("num_envs", [1, 2])
def test_real_transitions_are_what_the_environment_did(num_envs: int) -> None:
    """Time limits and terminations, ends of episodes, and the scale of actions: all of it, row by row."""
    walks = walkers(num_envs)
    agent = walking_agent(walks, learning_starts=0, gradient_steps=0)
    agent.learn(60)
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    table = replay.real_transitions()
    lived = [step for steps in zip(*(walk.lived for walk in walks), strict=True) for step in steps]
    assert len(table) == len(lived) == 60
    expected = [np.concatenate([s, a, [r], s2, [done]]) for s, a, r, s2, done in lived]
    np.testing.assert_allclose(table.rows, np.array(expected, np.float32), rtol=0, atol=1e-6)
    times = table.next_obs[:, 2]
    assert set(times[table.terminated]) == {LIFE}
    assert (times == LIMIT).any()  # cut short by the limit
    assert not table.terminated[times == LIMIT].any()


def test_rows_of_both_kinds_are_normalised_alike() -> None:
    replay = filled(0.5)
    real = replay.real_transitions()
    replay.replace_synthetic(real)
    env = VecNormalize(DummyVecEnv([Walk]))
    env.obs_rms.mean, env.obs_rms.var = np.array([1.0, 2.0, 3.0]), np.array([4.0, 9.0, 16.0])
    env.ret_rms.var = np.array(25.0)
    np.random.seed(0)
    raw = replay.sample(16)
    np.random.seed(0)
    seen = replay.sample(16, env)
    expected = (raw.observations.numpy() - np.array([1, 2, 3])) / [2, 3, 4]
    np.testing.assert_allclose(seen.observations.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(seen.rewards.numpy(), raw.rewards.numpy() / 5, atol=1e-6)


def test_synthetic_rows_that_are_no_transitions_are_refused() -> None:
    replay = filled(0.5)
    for column, value, message in (
        (replay.columns.terminal_at, 0.7, "terminals 0 or 1"),
        (replay.columns.reward_at, np.nan, "finite"),
        (replay.columns.obs_size, 1.2, r"actions in \[-1, 1\]"),
    ):
        table = marked(replay)
        table.rows[3, column] = value
        with pytest.raises(DataError, match=message):
            replay.replace_synthetic(table)
    with pytest.raises(DataError, match="rows of finite numbers, but got none"):
        replay.replace_synthetic(marked(replay, 0))
    assert replay.num_synthetic == 0


class Counting(gym.Env):
    """Shows two whole numbers in [0, 20] that do as they like."""

    def __init__(self, dtype: type) -> None:
        self.observation_space = gym.spaces.Box(0, 20, (2,), dtype)
        self.action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(0, 21, 2).astype(self.observation_space.dtype), {}

    def step(self, action):
        return self.np_random.integers(0, 21, 2).astype(self.observation_space.dtype), 0.5, False, False, {}


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_whole_observations_are_rounded_and_never_beyond_what_can_be_shown(dtype: type, monkeypatch) -> None:
    """A model that draws -1 of bytes must not give 255, and halves must not all be cut down."""
    seen: list[Transitions] = []
    held = MixedReplayBuffer.replace_synthetic
    monkeypatch.setattr(
        MixedReplayBuffer, "replace_synthetic", lambda self, table: (seen.append(table), held(self, table))[1]
    )
    agent = SAC(
        "MlpPolicy", DummyVecEnv([lambda: Counting(dtype)]), learning_starts=100, policy_kwargs={"net_arch": [8]},
        replay_buffer_class=MixedReplayBuffer, seed=0, device="cpu",
    )  # fmt: skip
    agent.learn(40, SyntheticRefresh(20, TINY))
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    for drawn, kept in ((seen[0].obs, replay._synthetic[0]), (seen[0].next_obs, replay._synthetic[2])):
        assert kept.dtype == dtype
        assert drawn.min() < 0  # an untrained model goes beyond
        assert drawn.max() > 20
        np.testing.assert_array_equal(drawn, np.round(drawn))
        np.testing.assert_array_equal(kept, np.clip(drawn, 0, 20))
    halves = Transitions(replay.columns, seen[0].rows.copy())
    halves.rows[0, 0] = 1.5
    with pytest.raises(DataError, match=r"observation\[0\] of synthetic transitions is declared a whole number"):
        replay.replace_synthetic(halves)


class Rooms(gym.Env):
    """Shows (x, one of three rooms, a count): x is any number, the rest is not."""

    observation_space = gym.spaces.Box(-10.0, 10.0, (5,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,))

    def _shown(self):
        room = np.eye(3)[self.np_random.integers(3)]
        return np.concatenate([self.np_random.normal(size=1), room, self.np_random.integers(0, 9, 1)])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._shown(), {}

    def step(self, action):
        return self._shown(), 0.5, False, False, {}


def agent_in_rooms(**declared: list[str]) -> SAC:
    return SAC(
        "MlpPolicy", DummyVecEnv([Rooms]), learning_starts=100, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu",
        replay_buffer_class=MixedReplayBuffer, replay_buffer_kwargs=declared,
    )  # fmt: skip


def test_declared_observations_are_one_of_several_and_whole() -> None:
    agent = agent_in_rooms(one_hot=["observation[1:4]"], rounded=["observation[4]"])
    agent.learn(40, SyntheticRefresh(20, TINY))
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    assert replay.num_synthetic == TINY.samples
    for kept in (replay._synthetic[0], replay._synthetic[2]):
        rooms = kept[:, 1:4]
        assert ((rooms == 0) | (rooms == 1)).all()
        np.testing.assert_array_equal(rooms.sum(axis=1), 1)
        np.testing.assert_array_equal(kept[:, 4], np.round(kept[:, 4]))
        assert (kept[:, 0] != np.round(kept[:, 0])).all()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"one_hot": ["observation[0:3]"]}, "one of observation\\[0\\] to observation\\[2\\] of the environment"),
        ({"rounded": ["observation[0]"]}, "observation\\[0\\] of the environment is declared a whole number"),
        ({"rounded": ["action"]}, "actions are continuous here, but got action"),
        ({"rounded": ["state"]}, "no field 'state', known: observation, action"),
        ({"one_hot": ["observation[1:9]"]}, "is no part of 'observation'"),
        ({"one_hot": ["observation[1:4]"], "rounded": ["observation[2]"]}, "is declared twice"),
    ],
)
def test_declared_observations_that_are_none_of_their_kind_are_refused(declared: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        agent_in_rooms(**declared).learn(40, SyntheticRefresh(20, TINY))


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        ("Pendulum-v1", {"replay_buffer_kwargs": {"ratio": 1.0}}, r"ratio must be in \[0, 1\)"),
        ("Pendulum-v1", {"replay_buffer_kwargs": {"ratio": -0.1}}, r"ratio must be in \[0, 1\)"),
        ("Pendulum-v1", {"optimize_memory_usage": True}, "optimize_memory_usage: expected false"),
    ],
)
def test_settings_that_a_mixed_replay_cannot_have_are_refused(env: str, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SAC("MlpPolicy", env, replay_buffer_class=MixedReplayBuffer, device="cpu", **settings)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (gym.spaces.Box(0, 255, (32, 32, 3), np.uint8), gym.spaces.Box(-1, 1, (1,)), "pictures of shape"),
        (gym.spaces.Dict({"pos": gym.spaces.Box(-1, 1, (2,))}), gym.spaces.Box(-1, 1, (1,)), "FlattenObservation"),
        (gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3), "continuous actions"),
        (gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-np.inf, np.inf, (1,)), "finite bounds"),
    ],
)
def test_spaces_without_a_flat_table_are_refused(observation, action, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MixedReplayBuffer(10, observation, action)
