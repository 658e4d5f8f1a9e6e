"""One of several samples, by its value: greedy, or by the softmax; kept in policy.pt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.errors import CheckpointError, ConfigError
from diffusion_policy.models.critic import Critic, CriticConfig
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.engines.export_onnx import export_onnx
from diffusion_policy.policies.library import load_policy, make_policy
from diffusion_policy.policies.policy import Policy
from diffusion_policy.policies.selection import Selector, SelectorConfig

OBS = {"pos": ObsField("low_dim", (3,))}
CHUNK = {"obs_horizon": 2, "action_horizon": 3, "pred_horizon": 8}


def plain_policy(sampler: str = "ddim") -> Policy:
    torch.manual_seed(0)
    steps = {"name": sampler, "num_inference_steps": 4 if sampler == "ddim" else 10}
    sections: dict[str, Any] = {
        "policy": {"name": "diffusion"},
        "horizons": CHUNK,
        "denoiser": {"name": "mlp", "hidden_dims": [32]},
        "diffusion": {"num_train_timesteps": 10},
        "sampler": steps,
    }
    return make_policy(sections, OBS, ActionSpec((2,), low=-1.0, high=1.0)).eval()


def critic() -> Critic:
    torch.manual_seed(1)
    return Critic(OBS, 2, 6, 2, CriticConfig((16,)))


def selecting(count: int = 6, temperature: float = 0.0, sampler: str = "ddim") -> Policy:
    return plain_policy(sampler).with_selector(Selector(critic(), SelectorConfig(count, temperature)))


def seen(rows: int = 5) -> dict[str, np.ndarray]:
    return {"pos": np.random.default_rng(0).standard_normal((rows, 2, 3), np.float32)}


def noise(policy: Policy, rows: int = 5) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, *policy.noise_shape), np.float32)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_without_temperature_the_candidate_of_the_largest_smaller_value_is_taken(sampler: str) -> None:
    policy, plain = selecting(sampler=sampler), plain_policy(sampler)
    z, obs = noise(policy), seen()
    candidates, values = [], []
    for c in range(6):
        own = z[:, c, :-1].reshape(5, *plain.noise_shape)
        prediction = plain.predict(obs, own).prediction
        executed = torch.from_numpy(prediction[:, 1:4].reshape(5, -1))
        known = {"pos": torch.from_numpy(obs["pos"])}
        values.append(policy.selector.critic(known, executed).amin(0).detach().numpy())
        candidates.append(prediction)
    best = np.argmax(values, axis=0)
    assert len(set(best)) > 1
    expected = np.stack(candidates)[best, np.arange(5)]
    np.testing.assert_allclose(policy.predict(obs, z).prediction, expected, atol=1e-5)


def test_temperature_draws_candidates_as_the_softmax_of_their_values() -> None:
    rows, temperature = 20_000, 0.1
    selector = Selector(critic(), SelectorConfig(4, temperature))
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(1, 4, 6, generator=generator).expand(rows, 4, 6)
    obs = {"pos": torch.zeros(rows, 2, 3)}
    with torch.no_grad():
        chosen = selector.choose(obs, actions, torch.randn(rows, 4, generator=generator))
        values = selector.critic({"pos": torch.zeros(4, 2, 3)}, actions[0]).amin(0)
    expected = (values / temperature).softmax(0)
    assert expected.max() < 0.9
    shares = torch.bincount(chosen, minlength=4) / rows
    torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


def test_selector_comes_back_with_its_policy_and_drives_a_controller(tmp_path: Path) -> None:
    policy = selecting(temperature=0.5)
    policy.save(tmp_path / "policy.pt")
    loaded = load_policy(tmp_path / "policy.pt")
    z = noise(policy)
    np.testing.assert_array_equal(loaded.predict(seen(), z).actions, policy.predict(seen(), z).actions)
    content = torch.load(tmp_path / "policy.pt", weights_only=True)
    assert set(content["selector"]) == {"critic", "num_candidates", "temperature"}
    assert not any(name.startswith("selector") for name in content["state_dict"])
    controller = RecedingHorizonController.load(tmp_path / "policy.pt", seeds=3)
    assert controller.act({"pos": np.zeros(3, np.float32)}).shape == (2,)


def test_policy_without_selector_is_what_it_was(tmp_path: Path) -> None:
    policy = plain_policy()
    selected = policy.with_selector(Selector(critic(), SelectorConfig(6)))
    assert policy.selector is None
    assert policy.noise_shape == (8, 2)
    assert selected.noise_shape == (6, 17)
    policy.save(tmp_path / "policy.pt")
    assert "selector" not in torch.load(tmp_path / "policy.pt", weights_only=True)


def test_policy_judges_as_many_candidates_as_it_is_told_to() -> None:
    policy = selecting(count=6)
    fewer, expected = policy.with_candidates(3), selecting(count=3)
    assert (policy.noise_shape, fewer.noise_shape) == ((6, 17), (3, 17))
    z = noise(expected)
    np.testing.assert_array_equal(fewer.predict(seen(), z).prediction, expected.predict(seen(), z).prediction)
    assert fewer.selector.critic is policy.selector.critic
    with pytest.raises(ConfigError, match="expected num_candidates >= 1"):
        policy.with_candidates(0)
    with pytest.raises(ConfigError, match="num_candidates=3: this policy has no critic that selects among samples"):
        plain_policy().with_candidates(3)


def test_selecting_policy_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"selects among samples by a critic.*run policy\.pt itself"):
        export_onnx(selecting(), tmp_path / "policy.onnx")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_selector_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    selecting().save(tmp_path / "policy.pt")
    content = torch.load(tmp_path / "policy.pt", weights_only=True)
    content["selector"]["critic"]["config"]["hidden_dims"] = [8]
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="its selector does not fit its policy"):
        load_policy(tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=r"num_candidates >= 1 and temperature >= 0"):
        SelectorConfig(3, -1.0)
