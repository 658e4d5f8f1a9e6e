"""The policy: horizons cut where they should, batches do not mix, clipping is refused where it would lie."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.diffusion.process import DiffusionConfig
from diffusion_policy.diffusion.samplers import SamplerConfig
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig
from diffusion_policy.policies.policy_config import NormalizationConfig

OBS = {"pos": ObsField("low_dim", (2,)), "points": ObsField("low_dim", (3, 2))}
ACTION = ActionSpec((2,), low=0.0, high=512.0)
CONFIG = DiffusionPolicyConfig(
    horizons=Horizons(2, 4, 8),
    denoiser={"name": "unet1d", "down_dims": (16, 32), "n_groups": 4, "embed_dim": 16, "kernel_size": 3},
    diffusion=DiffusionConfig(prediction_type="sample"),
    sampler=SamplerConfig(num_inference_steps=4),
)


def make_policy(config: DiffusionPolicyConfig = CONFIG, action: ActionSpec = ACTION) -> DiffusionPolicy:
    torch.manual_seed(0)
    policy = DiffusionPolicy(config, OBS, action).eval()
    rows = torch.rand(50, 2) * 400
    policy.fit_normalizers({"pos": rows, "points": torch.rand(50, 3, 2) * 500}, rows)
    return policy


def make_obs(batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "pos": rng.uniform(0, 400, (batch, 2, 2)).astype(np.float32),
        "points": rng.uniform(0, 500, (batch, 2, 3, 2)).astype(np.float32),
    }


def test_policy_executes_the_steps_from_now_of_its_prediction() -> None:
    chunk = make_policy().predict(make_obs(3), np.zeros((3, 8, 2), np.float32))
    assert chunk.prediction.shape == (3, 8, 2)
    np.testing.assert_array_equal(chunk.actions, chunk.prediction[:, 1:5])


def test_policy_returns_the_kind_it_was_given_with_equal_numbers() -> None:
    policy, obs, noise = make_policy(), make_obs(2), np.ones((2, 8, 2), np.float32)
    as_numpy = policy.predict(obs, noise)
    as_torch = policy.predict({k: torch.from_numpy(v) for k, v in obs.items()}, torch.from_numpy(noise))
    assert isinstance(as_numpy.actions, np.ndarray)
    assert isinstance(as_torch.actions, torch.Tensor)
    np.testing.assert_array_equal(as_numpy.actions, as_torch.actions.numpy())


def test_policy_clip_keeps_actions_inside_the_data_it_was_fitted_to() -> None:
    policy = make_policy()
    low, high = (policy.action_normalizer.unnormalize(torch.full((2,), v)).numpy() for v in (-1.0, 1.0))
    actions = policy.predict(make_obs(64), np.random.default_rng(0).normal(size=(64, 8, 2)) * 3).prediction
    assert (actions >= low - 1e-3).all()
    assert (actions <= high + 1e-3).all()


def test_policy_rows_do_not_see_each_other() -> None:
    policy = make_policy().double()
    obs = {k: torch.from_numpy(v).double() for k, v in make_obs(4).items()}
    cond, noise = policy.condition(obs), torch.randn(4, 8, 2).double()
    alone = torch.cat([policy.sample(cond[i : i + 1], noise[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(policy.sample(cond, noise), alone, rtol=1e-9, atol=1e-9)


def test_policy_same_noise_same_action_other_noise_other_action() -> None:
    policy, obs = make_policy(), make_obs(1)
    noise = np.random.default_rng(1).normal(size=(2, 1, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(policy.predict(obs, noise[0]).actions, policy.predict(obs, noise[0]).actions)
    assert not np.array_equal(policy.predict(obs, noise[0]).actions, policy.predict(obs, noise[1]).actions)


def test_policy_ddpm_asks_for_the_noise_of_every_step() -> None:
    policy = make_policy(replace(CONFIG, sampler=SamplerConfig(name="ddpm", num_inference_steps=5)))
    assert policy.noise_shape == (5, 8, 2)  # the last step adds none
    noise = np.random.default_rng(0).normal(size=(2, 5, 8, 2)).astype(np.float32)
    changed = noise.copy()
    changed[:, 3] += 1
    first = policy.predict(make_obs(2), noise).prediction
    assert not np.allclose(first, policy.predict(make_obs(2), changed).prediction)


def test_policy_with_sampler_shares_weights_and_changes_only_steps() -> None:
    policy = make_policy()
    other = policy.with_sampler(num_inference_steps=2)
    assert other.config.sampler.num_inference_steps == 2
    weights = zip(other.parameters(), policy.parameters(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in weights)
    noise = np.ones((1, 8, 2), np.float32)
    assert not np.array_equal(other.predict(make_obs(1), noise).actions, policy.predict(make_obs(1), noise).actions)


def test_policy_loss_is_per_sample_and_trains_every_used_parameter() -> None:
    policy = make_policy().train()
    obs = {k: torch.from_numpy(v) for k, v in make_obs(4).items()}
    action, noise = torch.rand(4, 8, 2) * 400, torch.randn(4, 8, 2)
    losses = policy.loss(obs, action, noise=noise, t=torch.tensor([1, 20, 50, 99]))
    assert losses.shape == (4,)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


def test_policy_normalisation_commutes_with_units() -> None:
    """Metres instead of pixels must give the same policy: normalisers absorb the unit."""
    pixels, metres = make_policy(), make_policy()
    rows, points = torch.rand(50, 2) * 400, torch.rand(50, 3, 2) * 500
    pixels.fit_normalizers({"pos": rows, "points": points}, rows)
    metres.fit_normalizers({"pos": rows / 1000, "points": points / 1000}, rows / 1000)
    noise = np.ones((2, 8, 2), np.float32)
    obs = make_obs(2)
    a = pixels.predict(obs, noise).actions
    b = metres.predict({k: v / 1000 for k, v in obs.items()}, noise).actions
    np.testing.assert_allclose(a, b * 1000, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("mode", ["gaussian", "quantile"])
def test_policy_refuses_to_clip_what_normalisation_leaves_outside(mode: str) -> None:
    config = replace(CONFIG, normalization=NormalizationConfig(action=mode))
    with pytest.raises(ConfigError, match="clip_sample=true needs actions inside"):
        make_policy(config)
    make_policy(replace(config, diffusion=DiffusionConfig(prediction_type="sample", clip_sample=False)))


def test_policy_identity_clips_only_with_bounds() -> None:
    config = replace(CONFIG, normalization=NormalizationConfig(action="identity"))
    with pytest.raises(ConfigError, match=r"needs action\.low and action\.high"):
        make_policy(config, ActionSpec((2,)))
    policy = make_policy(config)
    torch.testing.assert_close(policy.action_normalizer(torch.tensor([0.0, 512.0])), torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.pop("points"), "add points"),
        (lambda o: o.update(pos=o["pos"][:, :1]), r"must be \(B, 2, 2\)"),
        (lambda o: o.update(points=o["points"].reshape(2, 2, 6)), r"must be \(B, 2, 3, 2\)"),
    ],
)
def test_policy_refuses_observations_that_do_not_fit(change: Any, message: str) -> None:
    obs = make_obs(2)
    change(obs)
    with pytest.raises(ObservationError, match=message):
        make_policy().predict(obs)


def test_policy_refuses_noise_of_another_shape() -> None:
    with pytest.raises(ObservationError, match=r"noise must be \(2, 8, 2\), but got \(2, 4, 2\)"):
        make_policy().predict(make_obs(2), np.zeros((2, 4, 2), np.float32))
