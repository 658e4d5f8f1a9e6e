"""A rare terminal that follows from s': drawn as often as it is there, and where its rule says."""

import numpy as np
import pytest
import torch

from diffusion_policy.augment.synther import SamplingConfig, SyntherAugmenter, SyntherConfig
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.models.residual_net import ResidualNetConfig
from diffusion_policy.training.augmenting.fitting import FitConfig, InMemory
from diffusion_policy.training.hooks import HookConfig
from diffusion_policy.training.loop import LoopConfig
from diffusion_policy.training.optim import OptimConfig

COLUMNS = Columns({"observation": (4,)}, (1,))
EDGE = 1.5  # |tilt| beyond it ends an episode


def falls(next_obs: np.ndarray) -> np.ndarray:
    return np.abs(next_obs[:, 0]) > EDGE


def falling(count: int, seed: int = 0) -> Transitions:
    """Returns transitions of a rod that drifts over an edge: tilt, its speed and two slow numbers."""
    rng = np.random.default_rng(seed)
    obs, rows = np.zeros((count // 100, 4)), []
    for _ in range(400):
        action = rng.uniform(-1, 1, (len(obs), 1))
        speed = 0.97 * obs[:, 1] + 0.3 * action[:, 0] + 0.04 * obs[:, 0]
        slow = 0.95 * obs[:, 2:] + 0.3 * rng.standard_normal((len(obs), 2))
        after = np.concatenate([np.stack([obs[:, 0] + 0.1 * speed, speed], 1), slow], 1)
        over = falls(after)
        reward = np.cos(obs[:, :1]) - 0.1 * action**2
        rows.append(np.concatenate([obs, action, reward, after, over[:, None]], 1))
        obs = np.where(over[:, None], 0.1 * rng.standard_normal(obs.shape), after)
    return Transitions(COLUMNS, rng.permutation(np.concatenate(rows[100:]))[:count].astype(np.float32))


def drawn(real: Transitions, steps: int, like_others: bool = False) -> Transitions:
    """Returns samples of a small model; `like_others` learns the terminal as one more column, as published."""
    torch.manual_seed(0)
    config = FitConfig(
        LoopConfig(steps, batch_size=256, ema_max=0.995),
        OptimConfig(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, warmup_steps=0, grad_clip=1.0),
        HookConfig(),
        seed=0,
        device=torch.device("cpu"),
    )
    settings = SyntherConfig(ResidualNetConfig(width=96, blocks=3), sampling=SamplingConfig(steps=32, bf16=False))

    def train(model, rows) -> None:
        if like_others:
            model.unit.fill_(1.0)
            model.deviation.fill_(1.0)
        InMemory(config)(model, rows)

    model = SyntherAugmenter(COLUMNS, ((-1.0,), (1.0,)), settings, train)
    model.fit(real)
    return model.sample(8192, seed=0)


def agreement(table: Transitions) -> tuple[float, float, float]:
    """Returns the rate of terminals, their precision, and the recall of what the rule says of s'."""
    told, ended = table.terminated, falls(table.next_obs)
    both = float((told & ended).sum())
    return float(told.mean()), both / max(1, told.sum()), both / max(1, ended.sum())


def test_recorded_ends_are_rare_and_follow_the_rule() -> None:
    rate, precision, recall = agreement(falling(20_000))
    assert 0.005 < rate < 0.03
    assert precision == recall == 1.0


@pytest.mark.slow
def test_rare_terminals_are_as_frequent_as_in_the_data_and_where_the_rule_has_them() -> None:
    real = falling(20_000)
    rate, precision, recall = agreement(drawn(real, 3000))
    assert abs(rate / real.terminated.mean() - 1) < 0.3
    assert min(precision, recall) > 0.6
    before = agreement(drawn(real, 3000, like_others=True))
    assert before[2] < recall
