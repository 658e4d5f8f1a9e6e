"""What makes each baseline the method of its paper, and not a toy that only bears its name."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from torch import distributions as dist

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.models.clusters import kmeans, nearest
from diffusion_policy.models.mixture import Mixture, choose
from diffusion_policy.policies.library import make_policy
from diffusion_policy.policies.policy import Policy
from tests.policies.ambiguous import SHARE, UPPER, trained, trained_policy


def make(kind: str, horizons: tuple[int, int, int], **own: Any) -> Policy:
    torch.manual_seed(0)
    names = ("obs_horizon", "action_horizon", "pred_horizon")
    settings = {"horizons": dict(zip(names, horizons, strict=True)), "policy": {"name": kind, **own}}
    return make_policy(settings, {"pos": ObsField("low_dim", (1,))}, ActionSpec((2,), low=-1.0, high=1.0)).eval()


def windows(rows: int, policy: Policy) -> dict[str, torch.Tensor]:
    return {"pos": torch.randn(rows, policy.horizons.obs_horizon, 1, generator=torch.Generator().manual_seed(rows))}


# mixtures: lstm_gmm


def test_mixture_density_is_torch_s() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, mean = torch.randn(3, 4, 5, generator=generator), torch.randn(3, 4, 5, 2, generator=generator)
    std, action = torch.rand(3, 4, 5, 2, generator=generator) + 0.1, torch.randn(3, 4, 2, generator=generator)
    reference = dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Independent(dist.Normal(mean, std), 1))
    torch.testing.assert_close(Mixture(logits, mean, std).log_prob(action), reference.log_prob(action))


def test_choices_by_normal_numbers_have_the_weights_frequencies() -> None:
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3])
    normal = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    chosen = choose(weights.log(), normal)
    frequency = torch.bincount(chosen, minlength=4) / len(chosen)
    torch.testing.assert_close(frequency, weights, atol=0.01, rtol=0)
    extremes = choose(weights.log().expand(2, 4), torch.tensor([[-20.0], [20.0]]))
    assert extremes.tolist() == [[0], [3]]


def test_lstm_remembers_what_only_the_oldest_observation_told() -> None:
    policy = make("lstm_gmm", (6, 1, 6), hidden_dim=32, layers=1, modes=2)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)

    def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        sign = torch.randint(0, 2, (64, 1, 1), generator=generator) * 2.0 - 1
        obs = torch.zeros(64, 6, 1)
        obs[:, :1] = sign
        return {"pos": obs}, 0.5 * sign.expand(64, 6, 2)

    for step in range(300):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 300)
        obs, action = batch()
        optimizer.zero_grad()
        policy.losses(obs, action, {}).mean().backward()
        optimizer.step()
    obs, action = batch()
    error = policy.predict(obs, torch.zeros(64, 6, 3)).actions[:, 0] - action[:, 5]
    assert float(error.abs().max()) < 0.1


def test_lstm_gmm_acts_almost_without_noise_around_a_mode() -> None:
    _, _, answers = trained("lstm_gmm")
    spread = np.abs(answers[answers > 0] - np.median(answers[answers > 0]))
    assert np.median(spread) < 0.002  # the demonstrations' is 0.013


# clusters and offsets: bet


def test_kmeans_finds_the_centres_that_scipy_finds() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (6, 2))
    points = (truth[rng.integers(0, 6, 3000)] + 0.01 * rng.standard_normal((3000, 2))).astype(np.float32)
    ours = kmeans(torch.from_numpy(points), 6).numpy()
    theirs, _ = kmeans2(points, truth.astype(np.float32), minit="matrix")
    order = np.argmin(((ours[:, None] - theirs) ** 2).sum(-1), axis=0)
    assert sorted(order) == list(range(6))
    np.testing.assert_allclose(ours[order], theirs, atol=1e-3)


def test_kmeans_lives_with_fewer_points_than_centres() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    centres = kmeans(points, 5)
    assert centres.shape == (5, 2)
    torch.testing.assert_close(centres[nearest(points, centres)], points)


def test_bet_without_focus_and_offset_is_cross_entropy_of_the_cluster() -> None:
    policy = make("bet", (3, 1, 3), clusters=5, embed_dim=8, layers=1, heads=2, focal_gamma=0.0, offset_weight=0.0)
    action = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    policy.fit_normalizers({"pos": torch.randn(20, 1)}, action.flatten(0, 1))
    obs = windows(4, policy)
    logits, _ = policy._answer(policy.condition(obs))  # type: ignore[operator]
    right = nearest(policy.action_normalizer.normalize(action), policy.centres)  # type: ignore[arg-type]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten(), reduction="none")
    torch.testing.assert_close(policy.losses(obs, action, {}), expected.reshape(4, 3).mean(1))


def test_bet_reaches_actions_that_are_no_cluster_s_centre() -> None:
    """The toy that only draws a centre cannot: with one cluster for both ways, the offset has to tell them apart."""
    policy = make("bet", (1, 1, 1), clusters=1, embed_dim=16, layers=1, heads=2, dropout=0.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    where = torch.linspace(-1, 1, 64)[:, None, None]
    action = 0.8 * where.expand(64, 1, 2)
    policy.fit_normalizers({"pos": where.flatten(0, 1)}, action.flatten(0, 1))
    for _ in range(400):
        optimizer.zero_grad()
        policy.losses({"pos": where}, action, {}).mean().backward()
        optimizer.step()
    error = policy.predict({"pos": where}, torch.zeros(64, 1, 1)).actions - action
    assert float(error.square().mean().sqrt()) < 0.05
    assert float(action.std()) > 0.4


@pytest.mark.parametrize("kind", ["lstm_gmm", "bet"])
def test_answer_to_a_step_does_not_depend_on_later_ones(kind: str) -> None:
    own = {"bet": {"embed_dim": 16, "layers": 2, "heads": 2, "clusters": 4}, "lstm_gmm": {"hidden_dim": 16}}[kind]
    policy = make(kind, (6, 1, 6), **own)
    obs = windows(2, policy)
    later = {"pos": obs["pos"].clone()}
    later["pos"][:, 4:] += 1
    noise = torch.zeros(2, *policy.noise_shape)
    first, second = policy.predict(obs, noise).prediction, policy.predict(later, noise).prediction
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:])


# the energy: ibc


def test_ibc_energy_is_the_demonstrations_log_density() -> None:
    """Of InfoNCE against uniform negatives the optimum is -log p: judged on a grid, since the search seeks modes."""
    std = 0.08
    policy = trained_policy("ibc", std)
    grid = torch.linspace(-1, 1, 201)
    with torch.inference_mode():
        cond = policy.condition({"pos": torch.zeros(1, 1, 1)})
        found = (-policy.energy(cond, grid[None, :, None])).softmax(1)[0]  # type: ignore[operator]
    true = torch.zeros(201)
    for share, place in ((SHARE, UPPER), (1 - SHARE, -UPPER)):
        true += share * dist.Normal(place, std).log_prob(grid).exp()
    true /= true.sum()
    assert float((found - true).abs().sum()) / 2 < 0.2  # total variation
    assert float(found[grid > 0].sum()) == pytest.approx(SHARE, abs=0.1)
    assert float(found[(grid - 0.2).abs() < 0.1].sum()) < 0.02  # where the mean is, and regression goes


def test_ibc_answers_the_likelier_way() -> None:
    near, upper, _ = trained("ibc")
    assert near > 0.95
    assert upper > 0.95


def test_ibc_loss_of_an_ignorant_energy_is_the_log_of_the_candidates() -> None:
    policy = make("ibc", (2, 1, 2), hidden_dims=[8], negatives=31)
    torch.nn.init.zeros_(policy.network[-1].weight)  # type: ignore[index,arg-type]
    losses = policy.losses(windows(5, policy), torch.zeros(5, 2, 2), policy.draw(5, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(losses, torch.full((5,), math.log(32)))


# the conditional VAE: act


def test_act_divergence_is_the_gaussians_and_error_is_absolute() -> None:
    free = make("act", (1, 4, 4), embed_dim=16, heads=2, feedforward_dim=16, encoder_layers=1, kl_weight=0.0)
    tied = make("act", (1, 4, 4), embed_dim=16, heads=2, feedforward_dim=16, encoder_layers=1, kl_weight=3.0)
    obs, action = windows(4, free), torch.rand(4, 4, 2) - 0.5
    draws = free.draw(4, torch.Generator().manual_seed(0))
    mean, log_var = free._posterior(free.condition(obs), action)  # type: ignore[operator]
    posterior = dist.Normal(mean, (0.5 * log_var).exp())
    divergence = dist.kl_divergence(posterior, dist.Normal(torch.zeros(()), torch.ones(()))).sum(1)
    torch.testing.assert_close(tied.losses(obs, action, draws) - free.losses(obs, action, draws), 3 * divergence)
    z = mean + posterior.stddev * draws["latent"]
    decoded = free._decode(free.condition(obs), z)  # type: ignore[operator]
    torch.testing.assert_close(free.losses(obs, action, draws), (decoded - action).abs().mean((1, 2)))


def test_act_tells_two_ways_apart_by_its_latent() -> None:
    """In training z must carry which way a chunk went: the toy without an encoder keeps the error of the median."""
    policy = make(
        "act", (1, 2, 2), embed_dim=32, heads=2, feedforward_dim=32, encoder_layers=1, dropout=0.0, kl_weight=0.01
    )
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    error = 0.0
    for _ in range(200):
        sign = torch.randint(0, 2, (64, 1, 1), generator=generator) * 2.0 - 1
        action, obs = 0.5 * sign.expand(64, 2, 2), {"pos": torch.zeros(64, 1, 1)}
        mean, _ = policy._posterior(policy.condition(obs), action)  # type: ignore[operator]
        decoded = policy._decode(policy.condition(obs), mean).detach()  # type: ignore[operator]
        error = float((decoded - action).abs().mean())
        optimizer.zero_grad()
        policy.losses(obs, action, policy.draw(64, generator)).mean().backward()
        optimizer.step()
    assert error < 0.1  # without z: 0.5


def test_gaussian_loss_is_the_density_of_torch() -> None:
    policy = make("gaussian", (2, 3, 6), hidden_dims=[16])
    obs, action = windows(16, policy), torch.rand(16, 6, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    policy.fit_normalizers({"pos": obs["pos"].flatten(0, 1)}, action.flatten(0, 1))
    with torch.no_grad():
        policy.log_std.copy_(torch.linspace(-2, 1, policy.log_std.numel()).reshape(policy.log_std.shape))
        mean = policy.mean(policy.condition(obs))
        known = torch.distributions.Normal(mean, policy.log_std.exp())
        expected = -known.log_prob(policy.action_normalizer.normalize(action)).flatten(1).sum(1)
    torch.testing.assert_close(policy.losses(obs, action, {}), expected)
