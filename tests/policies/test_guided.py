"""Guided predictions of a policy: in env units, through its own sampler and normaliser."""

import numpy as np
import pytest
import torch
from torch import nn

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.chunk import GuidedChunkPolicy, KnownActions
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig
from diffusion_policy.policies.engines.eager import prepared

PLAIN = {
    "horizons": {"obs_horizon": 2, "action_horizon": 4, "pred_horizon": 8},
    "denoiser": {"name": "unet1d", "down_dims": [16, 32], "embed_dim": 16},
    "encoder": {"hidden_dims": [16]},
    "diffusion": {"prediction_type": "sample", "clip_sample": False},
    "sampler": {"num_inference_steps": 5},
}


class Independent(nn.Module):
    """The exact denoiser of independent standard Gaussians: E[x0 | x_t] = a x_t."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, x, t, cond):
        return self.process.a[t].reshape(-1, 1, 1) * x


@pytest.fixture
def policy():
    torch.manual_seed(0)
    made = DiffusionPolicy(
        DiffusionPolicyConfig.from_plain(PLAIN), {"pos": ObsField("low_dim", (3,))}, ActionSpec((2,))
    )
    made.fit_normalizers({"pos": torch.randn(50, 3)}, 100 + 50 * torch.rand(50, 2))
    return made.eval()


def asked(rows=3):
    rng = np.random.default_rng(0)
    obs = {"pos": rng.standard_normal((rows, 2, 3)).astype(np.float32)}
    known = (100 + 50 * rng.random((rows, 8, 2))).astype(np.float32)
    return obs, rng.standard_normal((rows, 8, 2)).astype(np.float32), known


def test_held_actions_come_back_and_free_ones_are_as_without(policy):
    policy.denoiser = Independent(policy.process)
    obs, noise, known = asked()
    weight = np.zeros((3, 8), np.float32)
    weight[:, :3] = 1
    held = policy.predict_guided(obs, noise, KnownActions(known, weight))
    free = policy.predict(obs, noise)
    assert np.allclose(held.prediction[:, :3], known[:, :3], atol=0.02)  # of 50
    assert np.allclose(held.prediction[:, 3:], free.prediction[:, 3:], atol=1e-3)
    assert np.array_equal(held.actions, held.prediction[:, 1:5])


def test_without_weight_and_through_the_engine_it_is_the_plain_prediction(policy):
    obs, noise, known = asked()
    nothing = KnownActions(known, np.zeros((3, 8), np.float32))
    plain = policy.predict(obs, noise).prediction
    engine = prepared(policy)
    assert isinstance(engine, GuidedChunkPolicy)
    assert isinstance(policy, GuidedChunkPolicy)
    for each in (policy, engine):
        assert np.allclose(each.predict_guided(obs, noise, nothing).prediction, plain, atol=1e-2)


def test_weights_are_left_as_they_were(policy):
    obs, noise, known = asked()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.predict_guided(obs, noise, KnownActions(known, np.ones((3, 8), np.float32)))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in policy.parameters())
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_known_actions_that_do_not_fit_are_refused(policy):
    obs, noise, known = asked()
    weight = np.ones((3, 8), np.float32)
    with pytest.raises(ObservationError, match=r"must be \(3, 8, 2\) and \(3, 8\)"):
        policy.predict_guided(obs, noise, KnownActions(known[:, :4], weight))
    with pytest.raises(ObservationError, match="finite"):
        policy.predict_guided(obs, noise, KnownActions(known * np.nan, weight))
    with pytest.raises(ObservationError, match="weights in"):
        policy.predict_guided(obs, noise, KnownActions(known, 2 * weight))


def test_engines_without_gradients_say_what_to_load(policy):
    obs, noise, known = asked()
    engine = prepared(policy)
    engine._guide = None
    with pytest.raises(ConfigError, match="computes no gradients"):
        engine.predict_guided(obs, noise, KnownActions(known, np.ones((3, 8), np.float32)))
