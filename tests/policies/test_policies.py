"""What every kind of policy promises, over the whole registry."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.errors import CheckpointError, ConfigError, UnknownNameError
from diffusion_policy.film.overlay import ChunkOverlay
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.kinds import POLICIES
from diffusion_policy.policies.library import load_policy, make_policy
from diffusion_policy.policies.policy import Policy
from tests.policies.ambiguous import trained

OBS = {"pos": ObsField("low_dim", (2,)), "grip": ObsField("low_dim", (1,))}
ACTION = ActionSpec((2,), low=-1.0, high=1.0)
CHUNK = {"obs_horizon": 2, "action_horizon": 4, "pred_horizon": 8}
STEPWISE = {"obs_horizon": 5, "action_horizon": 1, "pred_horizon": 5}
UNET = {"name": "unet1d", "down_dims": [8, 16], "n_groups": 4, "embed_dim": 8}

KINDS: dict[str, dict[str, Any]] = {
    "diffusion": {"horizons": CHUNK, "denoiser": UNET},
    "flow": {"horizons": CHUNK, "denoiser": UNET, "policy": {"num_inference_steps": 4}},
    "mlp": {"horizons": CHUNK, "policy": {"hidden_dims": [32]}},
    "lstm_gmm": {"horizons": STEPWISE, "policy": {"hidden_dim": 16, "modes": 3}},
    "bet": {"horizons": STEPWISE, "policy": {"clusters": 6, "embed_dim": 16, "layers": 2, "heads": 2}},
    "gaussian": {"horizons": CHUNK, "policy": {"hidden_dims": [32], "deterministic": False}},
    "act": {"horizons": CHUNK, "policy": {"embed_dim": 16, "feedforward_dim": 32, "heads": 2, "encoder_layers": 1}},
    "ibc": {
        "horizons": {"obs_horizon": 2, "action_horizon": 2, "pred_horizon": 4},
        "policy": {"hidden_dims": [32], "negatives": 16, "candidates": 32, "iterations": 2},
    },
}


def settings(kind: str) -> dict[str, Any]:
    return {**KINDS[kind], "policy": {"name": kind, **KINDS[kind].get("policy", {})}}


def data(rows: int, policy: Policy) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    To, Tp = policy.horizons.obs_horizon, policy.horizons.pred_horizon
    obs = {key: torch.randn(rows, To, *field.shape, generator=generator) for key, field in OBS.items()}
    return obs, torch.rand(rows, Tp, 2, generator=generator) * 2 - 1


def make(kind: str) -> Policy:
    torch.manual_seed(0)
    policy = make_policy(settings(kind), OBS, ACTION)
    obs, action = data(40, policy)
    policy.fit_normalizers({key: value.flatten(0, 1) for key, value in obs.items()}, action.flatten(0, 1))
    return policy.eval()


@pytest.fixture(params=sorted(KINDS))
def policy(request: pytest.FixtureRequest) -> Policy:
    return make(request.param)


def noise_for(policy: Policy, rows: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, *policy.noise_shape), np.float32)


def arrays(policy: Policy, rows: int) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in data(rows, policy)[0].items()}


def test_every_registered_kind_is_tested_here() -> None:
    assert set(KINDS) == {name for name in POLICIES if POLICIES.get(name).__module__.startswith("diffusion_policy.")}


def test_policy_predicts_whole_chunks_and_the_part_to_execute(policy: Policy) -> None:
    chunk = policy.predict(arrays(policy, 3), noise_for(policy, 3))
    start, length = policy.horizons.start, policy.horizons.action_horizon
    assert chunk.prediction.shape == (3, policy.horizons.pred_horizon, 2)
    np.testing.assert_array_equal(chunk.actions, chunk.prediction[:, start : start + length])
    assert np.isfinite(chunk.prediction).all()


def test_noise_alone_decides_and_a_row_does_not_depend_on_others(policy: Policy) -> None:
    obs, noise = arrays(policy, 4), noise_for(policy, 4)
    together = policy.predict(obs, noise).prediction
    np.testing.assert_array_equal(together, policy.predict(obs, noise).prediction)
    alone = policy.predict({key: value[2:3] for key, value in obs.items()}, noise[2:3]).prediction
    np.testing.assert_allclose(alone[0], together[2], atol=1e-5)
    if np.prod(policy.noise_shape):
        assert not np.allclose(together, policy.predict(obs, noise[::-1].copy()).prediction)


def test_losses_are_one_number_a_window_and_reach_every_weight(policy: Policy) -> None:
    obs, action = data(6, policy)
    losses = policy.losses(obs, action, policy.draw(6, torch.Generator().manual_seed(0)))
    assert losses.shape == (6,)
    losses.mean().backward()
    missing = [name for name, each in policy.named_parameters() if each.grad is None]
    assert not missing


def test_a_batch_may_be_computed_in_pieces(policy: Policy) -> None:
    obs, action = data(6, policy)
    draws = policy.draw(6, torch.Generator().manual_seed(0))
    whole = policy.losses(obs, action, draws)
    pieces = [
        policy.losses({k: v[rows] for k, v in obs.items()}, action[rows], {k: v[rows] for k, v in draws.items()})
        for rows in (slice(0, 2), slice(2, 6))
    ]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-5)


def test_file_holds_the_policy(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "policy.pt")
    loaded = load_policy(tmp_path / "policy.pt")
    assert type(loaded) is type(policy)
    assert loaded.plain_config() == policy.plain_config()
    obs, noise = arrays(policy, 2), noise_for(policy, 2)
    np.testing.assert_array_equal(loaded.predict(obs, noise).actions, policy.predict(obs, noise).actions)


def test_controller_runs_the_file_of_any_kind(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "policy.pt")
    controller = RecedingHorizonController.load(tmp_path / "policy.pt", seeds=[3])
    action = controller.act({"pos": np.zeros(2, np.float32), "grip": np.zeros(1, np.float32)})
    assert action.shape == (2,)
    assert np.abs(action).max() <= 1
    if policy.kind != "diffusion":
        with pytest.raises(ConfigError, match="computes in float32"):
            RecedingHorizonController.load(tmp_path / "policy.pt", precision="bfloat16")


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"diffusion"}))
def test_class_of_another_kind_refuses_a_file_and_names_what_loads_it(kind: str, tmp_path: Path) -> None:
    make(kind).save(tmp_path / "policy.pt")
    with pytest.raises(CheckpointError, match=f"kind '{kind}', expected 'diffusion'; diffusion_policy.load_policy"):
        DiffusionPolicy.load(tmp_path / "policy.pt")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_settings_of_others_are_refused_by_name(kind: str) -> None:
    plain = settings(kind)
    with pytest.raises(ConfigError, match=rf"policy '{kind}': .*unknown (setting|section)"):
        make_policy({**plain, "policy": {**plain["policy"], "wings": 2}}, OBS, ACTION)
    if kind != "diffusion":
        with pytest.raises(ConfigError, match=rf"policy '{kind}': unknown section sampler"):
            make_policy({**plain, "sampler": {"num_inference_steps": 3}}, OBS, ACTION)
    with pytest.raises(UnknownNameError, match="unknown policy 'bc', known: act, bet, diffusion"):
        make_policy({**plain, "policy": {"name": "bc"}}, OBS, ACTION)


@pytest.mark.parametrize("kind", ["lstm_gmm", "ibc"])
def test_policies_that_reach_no_further_than_one_want_actions_there(kind: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"policy '{kind}' cannot get beyond \+-1, but normalization.action=gaussian"
    ):
        make_policy({**settings(kind), "normalization": {"action": "gaussian"}}, OBS, ACTION)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_transformer_behind_layers_that_mix_the_steps_is_refused(kind: str) -> None:
    plain = {**settings(kind), "denoiser": {"name": "transformer", "obs_tokens": 2, "embed_dim": 16, "layers": 1}}
    make_policy(plain, OBS, ACTION)
    with pytest.raises(ConfigError, match="reads observed steps one by one"):
        make_policy({**plain, "encoder": {"hidden_dims": [16]}}, OBS, ACTION)


def test_overlay_shows_chunks_of_every_kind(policy: Policy) -> None:
    overlay = ChunkOverlay(policy, lambda actions, size: np.asarray(actions))
    overlay.predict(0, {key: value[0] for key, value in arrays(policy, 1).items()}, seed=0)
    ahead = policy.horizons.pred_horizon - policy.horizons.start
    assert overlay._chunks[0].shape == (overlay._samples, ahead, 2)


@pytest.mark.parametrize("kind", ["lstm_gmm", "bet"])
def test_stepwise_policies_refuse_chunks(kind: str) -> None:
    with pytest.raises(ConfigError, match="answers each observation with one action"):
        make_policy({**settings(kind), "horizons": CHUNK}, OBS, ACTION)


@pytest.mark.parametrize("kind", ["mlp", "act"])
def test_deterministic_policies_answer_equal_observations_equally(kind: str) -> None:
    policy = make(kind)
    assert policy.noise_shape == (0,)
    assert not np.allclose(policy.predict(arrays(policy, 1)).actions, policy.predict(arrays(policy, 2)).actions[:1])


@pytest.mark.parametrize("kind", ["mlp", "lstm_gmm", "bet", "act", "ibc"])
def test_policies_without_a_sampler_say_so(kind: str) -> None:
    with pytest.raises(ConfigError, match="has no sampler"):
        make(kind).with_sampler(num_inference_steps=2)


def test_flow_takes_another_number_of_steps() -> None:
    policy = make("flow")
    other = policy.with_sampler(num_inference_steps=9)
    obs, noise = arrays(policy, 1), noise_for(policy, 1)
    assert not np.allclose(other.predict(obs, noise).actions, policy.predict(obs, noise).actions)
    assert other.plain_config()["policy"]["num_inference_steps"] == 9


@pytest.mark.parametrize("kind", ["diffusion", "flow", "lstm_gmm", "bet"])
def test_policy_keeps_two_ways_apart_in_their_proportion(kind: str) -> None:
    """Of the demonstrations .7 go to +.5 and .3 to -.5, from the same observation."""
    near, upper, _ = trained(kind)
    assert near > 0.9
    assert abs(upper - 0.7) < 0.1


@pytest.mark.parametrize("kind", ["mlp", "act"])
def test_deterministic_policy_cannot(kind: str) -> None:
    near, _, actions = trained(kind)
    if kind == "mlp":
        assert near == 0.0
        assert float(actions.mean()) == pytest.approx(0.2, abs=0.1)  # the mean of .7 * .5 - .3 * .5
    else:
        assert float(actions.std()) < 1e-3  # one of them at best: absolute error has its minimum at the median
