"""Critics side by side are critics one by one."""

import pytest
import torch
from torch import nn

from diffusion_policy.config import ObsField
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.critic import Critic, CriticConfig, ParallelLinear

OBS = {"pos": ObsField("low_dim", (3,)), "grip": ObsField("low_dim", (1,))}


def inputs(rows: int = 7) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    obs = {key: torch.randn(rows, 2, *field.shape, generator=generator) for key, field in OBS.items()}
    return obs, torch.randn(rows, 5, generator=generator)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_parallel_critics_equal_separate_networks(layer_norm: bool) -> None:
    torch.manual_seed(0)
    critic = Critic(OBS, 2, 5, 3, CriticConfig((16, 8), layer_norm=layer_norm))
    obs, action = inputs()
    flat = torch.cat([torch.cat(list(obs.values()), -1).flatten(1), action], 1)
    values = critic(obs, action)
    assert values.shape == (3, 7)
    for k in range(3):
        x = flat
        for layer in critic.layers:
            if isinstance(layer, ParallelLinear):
                x = nn.functional.linear(x, layer.weight[k].T, layer.bias[k, 0])
            else:
                x = layer(x)
        torch.testing.assert_close(values[k], x[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(values[k], critic.single_value(k, critic.encoder(obs), action), rtol=1e-5, atol=1e-6)


def test_critics_begin_apart_and_as_torch_draws_linear_layers() -> None:
    torch.manual_seed(0)
    layer = ParallelLinear(2, 400, 300)
    assert not torch.allclose(layer.weight[0], layer.weight[1])
    plain = nn.Linear(400, 300)
    assert abs(layer.weight.std() / plain.weight.std() - 1) < 0.01
    assert abs(layer.bias.std() / plain.bias.std() - 1) < 0.1


def test_critic_computes_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    critic = Critic(OBS, 2, 5, 2, CriticConfig((16,)))
    obs, action = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        cast = critic(obs, action)
    assert torch.equal(cast, critic(obs, action))


def test_values_without_actions() -> None:
    value = Critic(OBS, 2, 0, 1, CriticConfig((16,)))
    assert value(inputs()[0]).shape == (1, 7)


def test_critic_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"critic\.hidden_dims must be positive"):
        CriticConfig((0,))
    with pytest.raises(ConfigError, match=r"critic\.activation: expected one of mish, relu"):
        CriticConfig.from_plain({"activation": "selu"})
    with pytest.raises(ConfigError, match="critic: unknown setting width"):
        CriticConfig.from_plain({"width": 3})
