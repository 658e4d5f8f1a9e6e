"""Diffusion-QL: identities of its losses, and the bandit that only a gradient through the whole chain solves."""

from copy import deepcopy

import pytest
import torch

from diffusion_policy.errors import ConfigError
from tests.agents import toys


@pytest.fixture
def made():
    return toys.objective("diffusion_ql", toys.policy(), eta=1.0)


def _gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    return [torch.zeros(1) if p.grad is None else p.grad.clone() for p in module.parameters()]


def _scaled(critic: torch.nn.Module, factor: float) -> None:
    """Multiplies what a critic says by scaling its last layer."""
    with torch.no_grad():
        critic.layers[-1].weight.mul_(factor)
        critic.layers[-1].bias.mul_(factor)


@pytest.mark.parametrize("climbed", [0, 1])
def test_climbing_is_the_same_when_q_is_scaled(made, climbed: int) -> None:
    known = toys.batch().obs
    results = []
    for factor in (1.0, 250.0):
        _scaled(made.critic, factor)
        action = toys.batch(size=2).action[:, 0].clone().requires_grad_()
        loss = made.climb_loss(known, action, climbed)
        results.append((loss.detach(), torch.autograd.grad(loss.mean(), action)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert results[0][1].abs().max() > 1e-4


def test_climbing_divides_by_the_other_critic(made) -> None:
    known, action = toys.batch().obs, toys.batch().action[:, 0]
    q = made.critic(known, action).detach()
    for climbed in (0, 1):
        expected = -q[climbed] / q[1 - climbed].abs().mean()
        torch.testing.assert_close(made.climb_loss(known, action, climbed), expected)
        assert not torch.allclose(expected, -q[climbed] / q[climbed].abs().mean(), rtol=1e-2)


def test_target_is_reward_and_discounted_smaller_value_of_the_averaged_policys_action(made) -> None:
    batch, noise = toys.batch(), toys.draws(made)["next"]
    average = deepcopy(made.policy)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(0.05)
    made.use_average(average)
    with torch.no_grad():
        action = average.sample(average.condition(batch.next_obs), noise)[:, 0]
        value = made.slow_critic(batch.next_obs, action)
    expected = batch.reward + 0.99 * torch.minimum(value[0], value[1])
    torch.testing.assert_close(made.target(batch, noise), expected)
    made.use_average(made.policy)
    assert not torch.allclose(made.target(batch, noise), expected)


def test_max_backup_is_the_best_of_ten_for_each_critic_and_then_the_smaller() -> None:
    made = toys.objective("diffusion_ql", toys.policy(), max_q_backup=True)
    batch, noise = toys.batch(), toys.draws(made)["next"]
    assert noise.shape[:2] == (32, 10)
    with torch.no_grad():
        cond = made.policy.condition(batch.next_obs)
        values = torch.stack(
            [made.slow_critic(batch.next_obs, made.policy.sample(cond, noise[:, i])[:, 0]) for i in range(10)], 2
        )  # (K, B, 10)
    best_then_smaller = values.amax(2).amin(0)
    torch.testing.assert_close(made.target(batch, noise), batch.reward + 0.99 * best_then_smaller)
    assert (values.amin(0).amax(1) < best_then_smaller - 1e-6).any()  # the other order is another number


def test_value_reaches_the_policy_through_every_denoising_step(made) -> None:
    """Cut the chain before its last step, and the gradient is another."""
    batch, drawn = toys.batch(), toys.draws(made)
    policy = made.policy
    action = policy.sample(policy.condition(batch.obs), drawn["sample"])[:, 0]
    made.climb_loss(batch.obs, action, 0).mean().backward()
    whole = _gradients(policy.denoiser)
    policy.zero_grad()
    seen = []

    def detached(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return policy.denoiser(x.detach(), t, policy.condition(batch.obs))

    cut = policy.sampler(detached, *policy.sampler.split(drawn["sample"]))
    torch.testing.assert_close(cut[:, 0], action)
    made.climb_loss(batch.obs, cut[:, 0], 0).mean().backward()
    assert len(seen) == 5
    assert sum((a - b).abs().sum() for a, b in zip(whole, _gradients(policy.denoiser), strict=True)) > 1e-3


def test_loss_moves_policy_and_critic_each_by_its_own_part(made) -> None:
    batch, drawn = toys.batch(), toys.draws(made)
    made.loss(batch, drawn).mean().backward()
    together = _gradients(made.critic)
    made.critic.zero_grad()
    made.critic_loss(batch.obs, batch.action[:, 0], made.target(batch, drawn["next"])).mean().backward()
    torch.testing.assert_close(together, _gradients(made.critic))  # climbing adds nothing to the critic's gradient
    assert all(not p.requires_grad for p in made.slow_critic.parameters())
    assert all(p.requires_grad for p in made.critic.parameters())


def test_without_eta_it_is_behaviour_cloning() -> None:
    trained = toys.policy()
    made = toys.objective("diffusion_ql", trained, eta=0.0)
    batch, drawn = toys.batch(), toys.draws(made)
    made.loss(batch, drawn).mean().backward()
    climbing = _gradients(trained)
    trained.zero_grad()
    trained.losses(batch.obs, batch.action, drawn).mean().backward()
    torch.testing.assert_close(climbing, _gradients(trained), rtol=1e-5, atol=1e-7)


def test_samples_in_training_may_take_fewer_steps_than_the_policys() -> None:
    trained = toys.policy()
    made = toys.objective("diffusion_ql", trained, num_inference_steps=2)
    average = deepcopy(trained)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(0.05)
    made.use_average(average)
    batch, drawn = toys.batch(), toys.draws(made)
    assert drawn["sample"].shape == drawn["next"].shape == (32, 2, 1, 2)
    made.loss(batch, drawn)
    action = trained.with_sampler(num_inference_steps=2).sample(trained.condition(batch.obs), drawn["sample"])[:, 0]
    climb = made.climb_loss(batch.obs, action, int(drawn["climbed"][0])).mean()
    torch.testing.assert_close(made.figures["q_loss"], climb.detach())
    with torch.no_grad():
        short = average.with_sampler(num_inference_steps=2)
        following = short.sample(average.condition(batch.next_obs), drawn["next"])[:, 0]
        value = made.slow_critic(batch.next_obs, following).amin(0)
    torch.testing.assert_close(made.target(batch, drawn["next"]), batch.reward + 0.99 * value)
    assert made.deployed(average).config.sampler.num_inference_steps == 5
    with pytest.raises(ConfigError, match="num_inference_steps"):
        toys.objective("diffusion_ql", toys.policy(), num_inference_steps=6)


def test_one_step_climbs_the_estimate_from_the_datas_noised_action() -> None:
    made = toys.objective("diffusion_ql", toys.policy(), one_step=True, eta=1.0)
    batch, drawn = toys.batch(), toys.draws(made)
    assert "sample" not in drawn
    made.loss(batch, drawn)
    process, policy = made.policy.process, made.policy
    noisy = process.add_noise(batch.action, drawn["noise"], drawn["t"])
    output = policy.denoiser(noisy, drawn["t"], policy.condition(batch.obs))
    x0 = process.to_x0(output, noisy, drawn["t"]).clamp(-1, 1)
    expected = made.climb_loss(batch.obs, x0[:, 0], int(drawn["climbed"][0])).mean()
    torch.testing.assert_close(made.figures["q_loss"], expected.detach())


def test_both_critics_are_climbed_in_turn(made) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [made.draw(toys.batch(), 32, generator)["climbed"] for _ in range(40)]
    assert all(len(each.unique()) == 1 for each in drawn)
    assert {int(each[0]) for each in drawn} == {0, 1}


def test_slow_critic_follows_by_its_rate(made) -> None:
    with torch.no_grad():
        for parameter in made.critic.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in made.slow_critic.parameters()]
    made.after_step()
    for slow, old in zip(made.slow_critic.parameters(), before, strict=True):
        torch.testing.assert_close(slow, old + 0.005, rtol=0, atol=1e-6)


def test_deployed_policy_draws_by_the_softmax_of_the_smaller_value(made) -> None:
    deployed = made.deployed(made.policy)
    assert made.policy.selector is None
    assert deployed.noise_shape == (50, 5 * 1 * 2 + 1)
    assert deployed.selector.critic is made.slow_critic


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match=r"agent\.eta must be 0 or more, but got -1"):
        toys.objective("diffusion_ql", toys.policy(), eta=-1.0)
    with pytest.raises(ConfigError, match="num_candidates >= 1"):
        toys.objective("diffusion_ql", toys.policy(), num_candidates=0)
    with pytest.raises(ConfigError, match="trains policy=diffusion, but got policy 'gaussian'"):
        toys.objective("diffusion_ql", toys.policy("gaussian"))
    with pytest.raises(ConfigError, match="agent: unknown setting ate"):
        toys.objective("diffusion_ql", toys.policy(), ate=1.0)


@pytest.mark.slow
def test_bandit_goes_to_the_best_corner_and_imitation_does_not() -> None:
    """Wang et al. 2022, section 5.1; a detached chain reaches 26 %, a flipped sign 0."""
    climbing = toys.trained_on_bandit(toys.objective("diffusion_ql", toys.policy(), eta=2.5, num_candidates=1), 3000)
    assert toys.nearest(climbing)[0][toys.BEST] >= 0.93
    imitating = toys.trained_on_bandit(toys.objective("diffusion_ql", toys.policy(), eta=0.0, num_candidates=1), 3000)
    shares = toys.nearest(imitating)[0]
    assert abs(shares - 0.25).max() <= 0.05


@pytest.mark.slow
def test_one_step_solves_the_bandit_too() -> None:
    made = toys.objective("diffusion_ql", toys.policy(), eta=2.5, num_candidates=1, one_step=True)
    assert toys.nearest(toys.trained_on_bandit(made, 3000))[0][toys.BEST] >= 0.85
