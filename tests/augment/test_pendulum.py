"""SynthER on a pendulum whose dynamics are known: what the diagnostics must pass, and what must fail them."""

import numpy as np
import pytest
import torch

from diffusion_policy.augment.augmenter import TransitionModel
from diffusion_policy.augment.baselines import GaussianAugmenter
from diffusion_policy.augment.diagnostics import RealRows, correlation_similarity, ks_complement
from diffusion_policy.augment.synther import SamplingConfig, SyntherAugmenter, SyntherConfig
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.models.residual_net import ResidualNetConfig
from diffusion_policy.training.augmenting.fitting import FitConfig, InMemory
from diffusion_policy.training.hooks import HookConfig
from diffusion_policy.training.loop import LoopConfig
from diffusion_policy.training.optim import OptimConfig

COLUMNS = Columns({"observation": (3,)}, (1,))
BOUNDS = ((-2.0,), (2.0,))
STEP_S, GRAVITY, LARGEST_SPEED = 0.05, 10.0, 8.0


def simulated(obs: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (next observation, reward) of a rod of 1 kg and 1 m: (cos, sin, rad/s), torque in N m."""
    angle, speed, torque = np.arctan2(obs[:, 1], obs[:, 0]), obs[:, 2], action[:, 0]
    reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = np.clip(speed + (1.5 * GRAVITY * np.sin(angle) + 3 * torque) * STEP_S, -LARGEST_SPEED, LARGEST_SPEED)
    angle = angle + speed * STEP_S
    return np.stack([np.cos(angle), np.sin(angle), speed], 1), reward


def pendulum(count: int, seed: int = 0) -> Transitions:
    """Returns transitions of episodes of 200 steps under torques that a random walk chooses."""
    rng = np.random.default_rng(seed)
    episodes = -(-count // 200)
    angle, speed = rng.uniform(-np.pi, np.pi, episodes), rng.uniform(-1, 1, episodes)
    obs, torque, rows = np.stack([np.cos(angle), np.sin(angle), speed], 1), np.zeros((episodes, 1)), []
    for _ in range(200):
        torque = np.clip(0.8 * torque + rng.normal(0, 1, torque.shape), -2, 2)
        after, reward = simulated(obs, torque)
        rows.append(np.concatenate([obs, torque, reward[:, None], after, np.zeros((episodes, 1))], 1))
        obs = after
    return Transitions(COLUMNS, rng.permutation(np.concatenate(rows))[:count].astype(np.float32))


def dynamics_mse(table: Transitions, real: Transitions) -> float:
    """Returns the mean squared error of s' against the simulator, in variances of the real one."""
    after, _ = simulated(table.obs.astype(np.float64), table.action.astype(np.float64))
    return float((((table.next_obs - after) / real.next_obs.std(axis=0)) ** 2).mean())


def passes(table: Transitions, real: Transitions) -> dict[str, bool]:
    return {
        "ks": bool(ks_complement(real.rows, table.rows).mean() >= 0.96),
        "correlations": bool(correlation_similarity(real.rows, table.rows).mean() >= 0.99),
        "dynamics": dynamics_mse(table, real) <= 1e-3,
    }


def shuffled(real: Transitions) -> Transitions:
    rng = np.random.default_rng(1)
    return Transitions(COLUMNS, np.stack([rng.permutation(column) for column in real.rows.T], 1))


def fitted(model: TransitionModel, real: Transitions) -> TransitionModel:
    model.fit(real)
    return model


def test_simulator_agrees_with_its_own_recordings() -> None:
    real = pendulum(2000)
    assert dynamics_mse(real, real) < 1e-10
    assert passes(real, real) == {"ks": True, "correlations": True, "dynamics": True}


def test_marginals_alone_and_one_gaussian_fail() -> None:
    real = pendulum(20_000)
    independent = passes(shuffled(real), real)
    assert independent["ks"]
    assert not independent["correlations"]
    assert not independent["dynamics"]
    gaussian = passes(fitted(GaussianAugmenter(COLUMNS, BOUNDS), real).sample(20_000, seed=0), real)
    assert gaussian["correlations"]
    assert not gaussian["ks"]
    assert not gaussian["dynamics"]


@pytest.mark.slow
def test_synther_learns_a_pendulum() -> None:
    real = pendulum(50_000)
    torch.manual_seed(0)
    config = FitConfig(
        LoopConfig(4000, batch_size=256, ema_max=0.995, bf16="auto"),
        OptimConfig(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup_steps=0, grad_clip=1.0),
        HookConfig(),
        seed=0,
        device=torch.device("cpu"),
    )
    settings = SyntherConfig(ResidualNetConfig(width=256, blocks=4), sampling=SamplingConfig(steps=32))
    model = fitted(SyntherAugmenter(COLUMNS, BOUNDS, settings, InMemory(config)), real)
    drawn = model.sample(20_000, seed=0)
    figures = (
        ks_complement(real.rows, drawn.rows).mean(), correlation_similarity(real.rows, drawn.rows).mean(),
        dynamics_mse(drawn, real),
    )  # fmt: skip
    assert passes(drawn, real) == {"ks": True, "correlations": True, "dynamics": True}, figures
    rows = RealRows(model, real)
    near = rows.nearest(drawn)
    assert near.copies == 0.0
    assert 0.5 * near.real < near.synthetic < 3 * near.real, near
