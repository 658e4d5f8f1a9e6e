"""IQL and IDQL: expectiles in closed form, weights, and no action that the data do not hold."""

import numpy as np
import pytest
import torch
from scipy import stats

from diffusion_policy.agents.iql import expectile_loss
from diffusion_policy.errors import ConfigError
from tests.agents import toys


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_least_expectile_loss_is_at_the_expectile(expectile: float) -> None:
    values = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=4000))
    v = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([v], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = expectile_loss(values - v, expectile).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert v.item() == pytest.approx(stats.expectile(values.numpy(), expectile), abs=1e-4)


@pytest.fixture
def made():
    return toys.objective("iql", toys.policy("gaussian"))


def test_critics_learn_from_the_value_of_the_next_observation(made) -> None:
    batch = toys.batch()
    made.loss(batch, {})
    with torch.no_grad():
        expected = batch.reward + 0.99 * made.value(batch.next_obs)[0]
    torch.testing.assert_close(made.figures["q_target"], expected.mean())


def test_no_action_of_the_policy_enters_the_loss_of_critics_and_value(made) -> None:
    batch = toys.batch()
    made.loss(batch, {}).mean().backward()
    learned = [p.grad.clone() for part in (made.critic, made.value) for p in part.parameters()]
    made.model.zero_grad()
    with torch.no_grad():
        for parameter in made.policy.parameters():
            parameter.add_(0.3)
    made.loss(batch, {}).mean().backward()
    torch.testing.assert_close(learned, [p.grad for part in (made.critic, made.value) for p in part.parameters()])


def test_imitation_is_weighted_by_the_exponential_advantage_up_to_100(made) -> None:
    batch = toys.batch()
    with torch.no_grad():
        advantage = made.slow_critic(batch.obs, batch.action[:, 0]).amin(0) - made.value(batch.obs)[0]
        weight = (3 * advantage).exp().clamp(max=100)
    made.loss(batch, {}).mean().backward()
    got = [p.grad.clone() for p in made.policy.parameters()]
    made.policy.zero_grad()
    (weight * made.policy.losses(batch.obs, batch.action, {})).mean().backward()
    torch.testing.assert_close(got, [p.grad for p in made.policy.parameters()])
    assert weight.std() > 1e-3  # or it would be plain imitation
    with torch.no_grad():
        made.value.layers[-1].bias.sub_(100.0)
    largest = (made.config.beta * 100.0 * torch.ones(1)).exp().clamp(max=100)
    losses = made.policy.losses(batch.obs, batch.action, {})
    made.policy.zero_grad()
    made.loss(batch, {}).mean().backward()
    capped = [p.grad.clone() for p in made.policy.parameters()]
    made.policy.zero_grad()
    (largest * losses).mean().backward()
    torch.testing.assert_close(capped, [p.grad for p in made.policy.parameters()])


def test_idql_imitates_all_and_takes_the_best_of_its_candidates() -> None:
    trained = toys.policy()
    made = toys.objective("iql", trained, weighted=False, num_candidates=64, temperature=0.0)
    batch, drawn = toys.batch(), toys.draws(made)
    made.loss(batch, drawn).mean().backward()
    got = [p.grad.clone() for p in trained.parameters()]
    trained.zero_grad()
    trained.losses(batch.obs, batch.action, drawn).mean().backward()
    torch.testing.assert_close(got, [p.grad for p in trained.parameters()])
    deployed = made.deployed(trained)
    assert deployed.selector.config.num_candidates == 64
    assert toys.objective("iql", toys.policy("gaussian")).deployed(trained).selector is None


def test_policy_that_does_not_train_stays_as_it_is_while_the_critics_learn_the_same() -> None:
    learning, judging = (
        toys.objective("iql", toys.policy(), weighted=False, num_candidates=4, train_policy=train)
        for train in (True, False)
    )
    judging.model.load_state_dict(learning.model.state_dict())
    batch = toys.batch()
    for made in (learning, judging):
        made.loss(batch, toys.draws(made)).mean().backward()
    assert all(each.grad is None for each in judging.policy.parameters())
    assert judging.policy not in judging.parts
    for ours, others in zip(judging.parts, learning.parts[1:], strict=True):
        torch.testing.assert_close([p.grad for p in ours.parameters()], [p.grad for p in others.parameters()])
    with pytest.raises(ConfigError, match="would change nothing"):
        toys.objective("iql", toys.policy(), train_policy=False, num_candidates=1)


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match=r"expectile in \(0, 1\)"):
        toys.objective("iql", toys.policy("gaussian"), expectile=1.0)


@pytest.mark.slow
def test_bandit_idql_takes_the_best_corner() -> None:
    made = toys.objective("iql", toys.policy(), weighted=False, num_candidates=64, temperature=0.0)
    assert toys.nearest(toys.trained_on_bandit(made, 2000), 500)[0][toys.BEST] >= 0.93


@pytest.mark.slow
def test_bandit_iql_leaves_the_mean_of_the_corners_for_the_good_ones() -> None:
    """One Gaussian cannot choose a corner, but its weights pull it from the middle towards the best."""
    made = toys.objective("iql", toys.policy("gaussian", deterministic=True))
    torch.manual_seed(0)
    mean = toys.trained_on_bandit(made, 2000).predict({"pos": np.zeros((1, 1, 1), np.float32)}).actions[0, 0]
    assert np.linalg.norm(mean - toys.CORNERS[toys.BEST]) < 0.5
