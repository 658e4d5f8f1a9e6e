"""Fine-tuning keeps the networks, the normaliser and the order of fields of its policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.training.run import train

Make = Callable[..., dict[str, Any]]


def test_run_fine_tunes_from_a_policy_and_keeps_its_normaliser(
    tmp_path: Path, make_config: Make, dataset: Path
) -> None:
    first = train(make_config(tmp_path / "first"))
    wide = tmp_path / "wide.zarr"
    with ReplayBuffer.open(dataset) as old, ReplayBuffer.create(wide) as new:
        for i in range(old.num_episodes):
            new.add_episode({k: 3 * v for k, v in old.get_episode(i).items()})
    config = make_config(tmp_path / "second", num_grad_steps=5)
    second = train({**config, "dataset": str(wide), "init": str(first.out / "policy.pt")})
    old_state, new_state = first.policy.state_dict(), second.policy.state_dict()
    assert torch.equal(old_state["action_normalizer.scale"], new_state["action_normalizer.scale"])
    difference = (old_state["denoiser.final_conv.1.weight"] - new_state["denoiser.final_conv.1.weight"]).abs().max()
    assert 0 < float(difference) < 0.05


def test_run_fine_tunes_with_fields_in_the_order_of_its_policy(tmp_path: Path, make_config: Make) -> None:
    """Features are concatenated in the order of the schema: another order would permute them silently."""
    fields = {"pos": {"type": "low_dim", "shape": [2]}, "action": {"type": "low_dim", "shape": [2]}}
    first = train({**make_config(tmp_path / "first", num_grad_steps=2), "obs": fields})
    config = make_config(tmp_path / "second", num_grad_steps=1)
    init = str(first.out / "policy.pt")
    second = train({**config, "obs": dict(reversed(fields.items())), "init": init, "optim": {"lr": 1e-30}})
    obs = {"pos": np.ones((1, 2, 2), np.float32), "action": np.zeros((1, 2, 2), np.float32)}
    noise = np.ones((1, 4, 2), np.float32)
    np.testing.assert_allclose(second.policy.predict(obs, noise).actions, first.policy.predict(obs, noise).actions)


def test_run_fine_tuning_on_another_schema_is_refused(tmp_path: Path, make_config: Make) -> None:
    first = train(make_config(tmp_path / "first", num_grad_steps=2))
    config = make_config(tmp_path / "second")
    obs = {"pos": {"type": "low_dim", "shape": [2]}, "action": {"type": "low_dim", "shape": [2]}}
    with pytest.raises(ConfigError, match="was trained on observations"):
        train({**config, "obs": obs, "init": str(first.out / "policy.pt")})
