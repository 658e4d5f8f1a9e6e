"""TD3+BC: smoothed targets, a policy that moves every second step, a balance that the scale of Q does not change."""

import pytest
import torch

from diffusion_policy.errors import ConfigError
from tests.agents import toys


@pytest.fixture
def made():
    return toys.objective("td3_bc", toys.policy("mlp", hidden_dims=[32], squash=True))


def test_targets_are_smoothed_by_clipped_noise_within_the_bounds(made) -> None:
    batch, noise = toys.batch(), 5 * torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        action = made.policy.sample(made.policy.condition(batch.next_obs), noise)[:, 0]
        smoothed = (action + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
        value = made.slow_critic(batch.next_obs, smoothed)
        unclipped = made.slow_critic(batch.next_obs, (action + 0.2 * noise).clamp(-1, 1))
    expected = batch.reward + 0.99 * torch.minimum(*value)
    torch.testing.assert_close(made.target(batch, noise), expected)
    assert not torch.allclose(batch.reward + 0.99 * torch.minimum(*unclipped), expected)


def test_policy_and_slow_critic_move_at_every_second_step(made) -> None:
    moved, followed = [], []
    for _ in range(4):
        with torch.no_grad():
            for parameter in made.critic.parameters():
                parameter.add_(0.1)
        made.policy.zero_grad()
        made.loss(toys.batch(), toys.draws(made)).mean().backward()
        moved.append(any(p.grad is not None for p in made.policy.parameters()))
        before = [p.clone() for p in made.slow_critic.parameters()]
        made.after_step()
        followed.append(not torch.equal(before[0], next(made.slow_critic.parameters())))
    assert moved == followed == [False, True, False, True]


def test_policy_climbs_the_first_critic_with_a_weight_that_scaling_q_does_not_change(made) -> None:
    results = []
    for factor in (1.0, 100.0):
        with torch.no_grad():
            made.critic.layers[-1].weight.mul_(factor)
            made.critic.layers[-1].bias.mul_(factor)
        made.model.get_buffer("steps").fill_(1)
        made.policy.zero_grad()
        made.loss(toys.batch(), toys.draws(made)).mean().backward()
        results.append([p.grad.clone() for p in made.policy.parameters()])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)
    batch = toys.batch()
    made.policy.zero_grad()
    action = made.policy.sample(made.policy.condition(batch.obs), batch.reward)[:, 0]
    q = made.critic(batch.obs, action)[0]
    (2.5 * -q.mean() / q.detach().abs().mean() + (action - batch.action[:, 0]).square().mean()).backward()
    torch.testing.assert_close(results[1], [p.grad for p in made.policy.parameters()], rtol=1e-4, atol=1e-6)


def test_only_policies_that_answer_within_bounds_are_trained() -> None:
    with pytest.raises(ConfigError, match=r"use policy=mlp policy\.squash=true"):
        toys.objective("td3_bc", toys.policy("mlp", hidden_dims=[32]))
    with pytest.raises(ConfigError, match="got 'diffusion'"):
        toys.objective("td3_bc", toys.policy())


@pytest.mark.slow
def test_bandit_goes_to_the_best_corner() -> None:
    made = toys.objective("td3_bc", toys.policy("mlp", hidden_dims=[256, 256], squash=True), alpha=10.0)
    assert toys.nearest(toys.trained_on_bandit(made, 2000))[0][toys.BEST] == 1.0
