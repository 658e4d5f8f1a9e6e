"""Refreshes: when they happen, and that nothing but the synthetic part of the replay changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3", reason="needs stable-baselines3, of the extra online")

from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer

from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.online import MixedReplayBuffer, SyntheticRefresh
from diffusion_policy.online.refresh import Refreshed
from tests.online.toys import TINY, Walk, stored, walkers, walking_agent, weights


class Misled(SyntheticRefresh):
    """As the public code was until 2026: the loop goes on from an observation that no environment showed."""

    def refresh(self) -> Refreshed:
        done = super().refresh()
        replay = self.model.replay_buffer  # type: ignore[attr-defined]
        self.model._last_obs = replay._synthetic[0][: self.model.n_envs].copy()
        return done


def foreign_observations(agent: SAC, walks: Sequence[Walk], monkeypatch: pytest.MonkeyPatch) -> tuple[list, list]:
    """Env steps at which the agent acted, and those at which it acted on what no environment had just shown."""
    acted: list[int] = []
    foreign: list[int] = []
    predict = agent.predict

    def watched(observation: Any, *args: Any, **kwargs: Any) -> Any:
        acted.append(agent.num_timesteps)
        if not np.array_equal(observation, [walk.shown[-1] for walk in walks]):
            foreign.append(agent.num_timesteps)
        return predict(observation, *args, **kwargs)

    monkeypatch.setattr(agent, "predict", watched)
    return acted, foreign


@pytest.mark.parametrize("num_envs", [1, 2])
def test_agent_acts_on_what_the_environment_showed_after_each_refresh(num_envs: int, monkeypatch) -> None:
    walks = walkers(num_envs)
    agent = walking_agent(walks)
    acted, foreign = foreign_observations(agent, walks, monkeypatch)
    refresh = SyntheticRefresh(20, TINY)
    agent.learn(60, refresh)
    refreshed = [each.env_step for each in refresh.history]
    assert refreshed == [20, 40]
    assert set(refreshed) <= set(acted)
    assert foreign == []


def test_a_loop_that_goes_on_from_synthetic_observations_is_noticed(monkeypatch) -> None:
    walks = walkers(1)
    agent = walking_agent(walks)
    _, foreign = foreign_observations(agent, walks, monkeypatch)
    agent.learn(60, Misled(20, TINY))
    assert foreign == [20, 40]


@pytest.mark.parametrize("num_envs", [1, 2])
def test_agent_that_draws_no_synthetic_rows_learns_the_same_with_refreshes(num_envs: int) -> None:
    """To the bit: a refresh touches neither the real replay, nor the random numbers, nor the loop."""
    refresh = SyntheticRefresh(20, TINY)
    plain = walking_agent(walkers(num_envs), ratio=0.0).learn(60)
    refreshed = walking_agent(walkers(num_envs), ratio=0.0).learn(60, refresh)
    assert len(refresh.history) == 2
    assert stored(plain) == stored(refreshed)
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(refreshed), strict=True))


def test_refresh_leaves_the_bytes_of_the_real_replay() -> None:
    agent = walking_agent(walkers(2))
    refresh = SyntheticRefresh(20, TINY)
    agent.learn(30, refresh)
    before = stored(agent)
    refresh.refresh()
    assert stored(agent) == before


def test_synthetic_rows_are_settled_and_those_of_the_last_refresh_only() -> None:
    agent = walking_agent(walkers(1))
    refresh = SyntheticRefresh(20, TINY)
    agent.learn(59, refresh)
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    first = replay._synthetic[0].copy()
    agent.learn(22, refresh, reset_num_timesteps=False)
    assert [each.env_step for each in refresh.history] == [20, 40, 60, 80]
    assert replay.num_synthetic == 50
    assert not np.isin(first, replay._synthetic[0]).any()
    batch = replay.sample(64)
    assert set(batch.dones.flatten().tolist()) <= {0.0, 1.0}
    assert float(batch.actions.abs().max()) <= 1


@pytest.mark.parametrize("kind", [TD3, DDPG])
def test_other_agents_with_continuous_actions_learn_with_refreshes(kind: type) -> None:
    agent = walking_agent(walkers(1), kind=kind)
    refresh = SyntheticRefresh(20, TINY)
    agent.learn(50, refresh)
    assert [each.env_step for each in refresh.history] == [20, 40]


def test_seeds_of_refreshes_differ_and_are_told() -> None:
    agent = walking_agent(walkers(1), seed=3)
    refresh = SyntheticRefresh(20, TINY)
    agent.learn(60, refresh)
    seeds = [each.refit.seeds for each in refresh.history]
    assert refresh.seed == 3
    assert len({number for pair in seeds for number in pair}) == 4
    unseeded = walking_agent(walkers(1), seed=None)  # type: ignore[arg-type]
    told = SyntheticRefresh(20, TINY)
    unseeded.learn(30, told)
    assert isinstance(told.seed, int)


def test_refresh_waits_for_a_batch_and_is_left_out_at_the_end() -> None:
    agent = walking_agent(walkers(1))
    refresh = SyntheticRefresh(10, TINY)  # batches of 16
    agent.learn(30, refresh)
    assert [each.env_step for each in refresh.history] == [16, 20]
    agent.learn(15, refresh, reset_num_timesteps=False)  # the one at 30 was put off until there is a use
    assert [each.env_step for each in refresh.history] == [16, 20, 31, 40]
    agent.learn(25, refresh)  # from step 0, with the replay as it is
    assert [each.env_step for each in refresh.history[4:]] == [10, 20]


def test_columns_that_never_change_stay_exact_in_pendulum() -> None:
    """It never terminates: no synthetic transition may."""
    agent = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_starts=1000,
        policy_kwargs={"net_arch": [8]},
        replay_buffer_class=MixedReplayBuffer,
        seed=0,
        device="cpu",
    )
    refresh = SyntheticRefresh(210, TINY)
    agent.learn(220, refresh)
    assert len(refresh.history) == 1
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    assert replay.timeouts.sum() == replay.dones.sum() == 1  # the limit of 200 steps
    assert not replay._synthetic[3].any()
    assert refresh.history[0].refit.terminal_rate == (0.0, 0.0)


def test_diagnostics_are_those_of_the_synthetic_set() -> None:
    agent = walking_agent(walkers(1))
    told: list[Refreshed] = []
    agent.learn(50, SyntheticRefresh(20, TINY, on_refresh=told.append))
    assert [each.env_step for each in told] == [20, 40]
    found = told[1].refit
    replay = agent.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    assert (found.real, found.samples, found.grad_steps) == (40, 50, 8)
    assert found.reward_mean[1] == pytest.approx(float(replay._synthetic[4].mean()), abs=1e-5)
    assert found.terminal_rate[1] == pytest.approx(float(replay._synthetic[3].mean()))
    assert 0 <= found.ks_min <= found.ks_mean <= 1
    assert 0 <= found.correlation_min <= found.correlation_mean <= 1


def test_replay_that_never_holds_a_batch_is_refused() -> None:
    agent = walking_agent(walkers(2), buffer_size=10)
    with pytest.raises(ConfigError, match="holds 10 transitions, and a model is fitted to batches of 16: nothing"):
        agent.learn(40, SyntheticRefresh(20, TINY))


def test_refresh_by_hand_says_what_it_lacks() -> None:
    refresh = SyntheticRefresh(20, TINY)
    with pytest.raises(ConfigError, match="expected an agent that learns with it"):
        refresh.refresh()
    agent = walking_agent(walkers(1))
    refresh.init_callback(agent)
    with pytest.raises(DataError, match="at least 2 transitions"):
        refresh.refresh()
    agent.learn(5)
    with pytest.raises(DataError, match="at least one batch of 16 transitions, but got 5"):
        refresh.refresh()


def test_saved_replay_has_its_synthetic_rows_and_goes_on(tmp_path) -> None:
    agent = walking_agent(walkers(1))
    agent.learn(50, SyntheticRefresh(20, TINY))
    agent.save_replay_buffer(tmp_path / "replay.pkl")
    other = walking_agent(walkers(1), ratio=0.25)
    other.load_replay_buffer(tmp_path / "replay.pkl")
    replay = other.replay_buffer
    assert isinstance(replay, MixedReplayBuffer)
    assert (replay.num_real, replay.num_synthetic, replay.synthetic_rows(16)) == (50, 50, 8)
    assert stored(other) == stored(agent)
    refresh = SyntheticRefresh(20, TINY)
    other.learn(25, refresh)
    assert [each.env_step for each in refresh.history] == [20]


def test_agents_without_a_mixed_replay_are_refused() -> None:
    agent = walking_agent(walkers(1), replay_buffer_class=ReplayBuffer, replay_buffer_kwargs={})
    with pytest.raises(ConfigError, match="SAC has ReplayBuffer; give it to the agent"):
        agent.learn(10, SyntheticRefresh(5, TINY))
    with pytest.raises(ConfigError, match="every must be a whole number, 1 or more, but got 0"):
        SyntheticRefresh(0)
