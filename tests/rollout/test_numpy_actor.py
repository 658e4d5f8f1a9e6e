"""Agents from npz files: against closed forms, against their published returns, and damaged ones."""

import os
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.errors import ConfigError, DataError, MissingFileError
from diffusion_policy.rollout.actors import ExpertActor, NoisyActor, RandomActor, noise_generator
from diffusion_policy.rollout.attempts import rollout
from diffusion_policy.rollout.environments import make_env
from diffusion_policy.rollout.numpy_actor import NumpyActor

AGENTS = Path(os.environ.get("DP_DATA_DIR", "nowhere")) / "rl_actors"


@pytest.fixture
def env(toys) -> gym.Env:
    return gym.make("toys/Count-v0")  # observes one number, acts in [-9, 9]


@pytest.fixture
def gaussian(tmp_path: Path) -> Path:
    """mu = 0.5 relu(2 x) + 0.1, log_std = -1."""
    np.savez(
        tmp_path / "sac.npz",
        **{
            "kind": "squashed_gaussian_relu",
            "latent_pi.0.weight": [[2.0]],
            "latent_pi.0.bias": [0.0],
            "latent_pi.2.weight": [[1.0]],
            "latent_pi.2.bias": [0.0],
            "mu.weight": [[0.5]],
            "mu.bias": [0.1],
            "log_std.weight": [[0.0]],
            "log_std.bias": [-1.0],
        },
    )
    return tmp_path / "sac.npz"


def mlp(path: Path, **changes) -> Path:
    """Saves tanh(3 x) 40, where x is the observation normalised with mean 1, variance 4 and clipped to 2."""
    arrays = {"kind": "mlp_tanh", "W0": [[3.0]], "b0": [0.0], "W1": [[40.0]], "b1": [0.0], "obs_mean": [1.0]}
    arrays |= {"obs_var": [4.0], "eps": 0.0, "clip_obs": 2.0, **changes}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def test_squashed_gaussian_acts_by_tanh_of_its_mean_in_the_bounds_of_the_environment(env, gaussian) -> None:
    act = NumpyActor(gaussian).begin(env, 0)
    for x in (-1.0, 0.0, 0.3):
        action = act(np.array([x]), {})
        assert action.dtype == env.action_space.dtype
        np.testing.assert_allclose(action, 9 * np.tanh(0.5 * max(2 * x, 0) + 0.1), rtol=1e-6)


def test_stochastic_agent_draws_its_gaussian_from_the_seed(env, gaussian) -> None:
    actor = NumpyActor(gaussian, stochastic=True)
    x = np.array([0.3])
    act = actor.begin(env, 5)
    samples = np.array([np.arctanh(act(x, {})[0] / 9.0) for _ in range(4000)])
    assert samples.mean() == pytest.approx(0.4, abs=0.03)
    assert samples.std() == pytest.approx(np.exp(-1.0), rel=0.05)
    again, other = actor.begin(env, 5), actor.begin(env, 6)
    assert np.arctanh(again(x, {})[0] / 9.0) == samples[0]
    assert np.arctanh(other(x, {})[0] / 9.0) != samples[0]


def test_mlp_normalises_what_it_sees_and_is_clipped_to_the_action_space(env, tmp_path: Path) -> None:
    act = NumpyActor(mlp(tmp_path / "ppo.npz")).begin(env, 0)
    np.testing.assert_allclose(act(np.array([1.1]), {}), 40 * np.tanh(3 * 0.05), rtol=1e-6)
    assert act(np.array([2.0]), {}) == 9
    raw = NumpyActor(mlp(tmp_path / "raw.npz", obs_mean=None, W1=[[1.0]])).begin(env, 0)
    np.testing.assert_allclose(raw(np.array([0.2]), {}), np.tanh(0.6), rtol=1e-6)
    clipped = NumpyActor(mlp(tmp_path / "clip.npz", W0=[[0.1]], W1=[[1.0]])).begin(env, 0)
    np.testing.assert_allclose(clipped(np.array([100.0]), {}), np.tanh(0.2), rtol=1e-6)


def test_noise_is_gaussian_of_the_seed_and_stays_in_the_action_space(env) -> None:
    class Still:
        name = "still"

        def begin(self, env, seed):
            return lambda obs, info: np.zeros(1, np.float32)

    act = NoisyActor(Still(), 2.0).begin(env, 3)
    drawn = np.array([act(None, {})[0] for _ in range(4000)])
    assert drawn.std() == pytest.approx(2.0, rel=0.05)
    assert NoisyActor(Still(), 2.0).begin(env, 3)(None, {})[0] == drawn[0]
    wild = NoisyActor(Still(), 100.0).begin(env, 3)
    assert max(abs(wild(None, {})[0]) for _ in range(50)) == 9
    assert NoisyActor(RandomActor(), 0.5).details == {"noise": 0.5}


def test_random_actor_fills_the_action_space_evenly(env) -> None:
    act = RandomActor().begin(env, 1)
    drawn = np.array([act(None, {})[0] for _ in range(4000)])
    counts = np.histogram(drawn, bins=6, range=(-9, 9))[0]
    assert counts.sum() == 4000
    assert counts.min() > 570
    assert RandomActor().begin(env, 1)(None, {})[0] == drawn[0]


def test_chance_of_actors_does_not_repeat_the_environments() -> None:
    streams = [np.random.default_rng(7), *(noise_generator(7, each) for each in ("random", "noise", "sample"))]
    first = [stream.uniform() for stream in streams]
    assert len(set(first)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "lstm"}, "kind is 'lstm'"),
        ({"kind": None}, "kind is 'not given'"),
        ({"b1": None}, "has no b1; it has: kind, W0"),
        ({"W0": [[np.nan]]}, "'W0' holds NaN"),
        ({"W1": [[1.0, 2.0]]}, "layer 1 must turn 1 numbers into 1, but its weights turn 2"),
        ({"W1": [1.0]}, "'W1' must be 2-dimensional"),
        ({"obs_mean": [1.0, 2.0]}, "expected obs_mean and obs_var of 1 numbers"),
        ({"clip_obs": None}, "eps and clip_obs"),
        ({"kind": "squashed_gaussian_relu"}, "has no latent_pi.0.weight"),
    ],
)
def test_damaged_agents_are_refused_in_one_line(changes, message, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        NumpyActor(mlp(tmp_path / "a.npz", **changes))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_agents_are_refused(tmp_path: Path, gaussian: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        NumpyActor(tmp_path / "nothing.npz")
    (tmp_path / "cut.npz").write_bytes(gaussian.read_bytes()[:300])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "objects.npz", kind=np.array({"a": 1}, dtype=object))
    for name in ("cut", "text", "objects"):
        with pytest.raises(DataError, match="cannot be read"):
            NumpyActor(tmp_path / f"{name}.npz")
    with pytest.raises(DataError, match="cannot be read"):
        NumpyActor(tmp_path)
    with pytest.raises(ConfigError, match="stochastic=true needs an agent with log_std"):
        NumpyActor(mlp(tmp_path / "ppo.npz"), stochastic=True)


def test_agents_of_another_environment_are_refused(env, toys, gaussian: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="acts on one vector"):
        NumpyActor(gaussian).begin(gym.make("toys/Chaos-v0"), 0)
    wide = mlp(tmp_path / "wide.npz", W0=[[1.0, 1.0]], obs_mean=None)
    with pytest.raises(ConfigError, match=r"observations of 2 numbers and actions of 1, but CountEnv has 1 and 1"):
        NumpyActor(wide).begin(env, 0)
    for actor in (RandomActor(), NoisyActor(ExpertActor(), 0.1)):
        with pytest.raises(ConfigError, match="continuous actions with bounds"):
            actor.begin(gym.make("CartPole-v1"), 0)


@pytest.mark.slow
@pytest.mark.skipif(not AGENTS.is_dir(), reason="the agents are not here; DP_DATA_DIR names their folder")
@pytest.mark.parametrize(
    ("env_id", "agent", "noise", "expected", "within"),
    [
        ("Hopper-v5", "Hopper_ppo.npz", 0.0, 2439, 25),
        ("Hopper-v5", "Hopper_trpo.npz", 0.0, 3626, 25),
        ("Hopper-v5", "Hopper_sac.npz", 0.0, 1336, 400),
        ("HalfCheetah-v5", "HalfCheetah_ppo.npz", 0.0, 5887, 100),
        ("HalfCheetah-v5", "HalfCheetah_sac.npz", 0.0, 9362, 300),
        ("HalfCheetah-v5", "HalfCheetah_tqc.npz", 0.0, 12082, 300),
        ("Walker2d-v5", "Walker2d_sac.npz", 0.0, 3937, 150),
        ("Walker2d-v5", "Walker2d_sac.npz", 0.3, 3029, 900),
    ],
)
def test_agents_reach_the_returns_that_they_are_known_for(env_id, agent, noise, expected, within) -> None:
    env = make_env(env_id)
    actor = NoisyActor(NumpyActor(AGENTS / agent), noise)
    returns = [rollout(env, actor, seed)[0]["reward"].sum(dtype=np.float64) for seed in range(10)]
    assert np.mean(returns) == pytest.approx(expected, abs=within)
