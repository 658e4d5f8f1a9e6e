"""One schema, one encoder: layout of the condition, and a new type that is one registration away."""

import pytest
import torch
from torch import Tensor

from diffusion_policy.config import ObsField
from diffusion_policy.errors import ConfigError, UnknownNameError
from diffusion_policy.models.field_encoder import FieldEncoder, register_field_encoder
from diffusion_policy.models.observation import EncoderConfig, ObservationEncoder


def test_encoder_concatenates_fields_within_a_step_then_steps() -> None:
    spec = {"a": ObsField("low_dim", (2, 2)), "b": ObsField("low_dim", (1,))}
    encoder = ObservationEncoder(spec, obs_horizon=2)
    a = torch.arange(8.0).reshape(1, 2, 2, 2)
    b = torch.tensor([[[100.0], [101.0]]])
    assert encoder.cond_dim == 10
    assert encoder({"a": a, "b": b}).tolist() == [[0, 1, 2, 3, 100, 4, 5, 6, 7, 101]]


def test_single_numbers_are_observations_too() -> None:
    encoder = ObservationEncoder({"height": ObsField("low_dim", ()), "pos": ObsField("low_dim", (2,))}, obs_horizon=2)
    seen = {"height": torch.tensor([[1.0, 4.0]]), "pos": torch.tensor([[[2.0, 3.0], [5.0, 6.0]]])}
    assert encoder(seen).tolist() == [[1, 2, 3, 4, 5, 6]]


def test_encoder_mlp_has_the_sizes_asked_for_and_is_not_linear() -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder({"a": ObsField("low_dim", (3,))}, 2, EncoderConfig(hidden_dims=(8, 5)))
    x, y = torch.randn(2, 4, 2, 3)
    assert encoder({"a": x}).shape == (4, 5)
    assert encoder.cond_dim == 5
    middle = (encoder({"a": x}) + encoder({"a": y})) / 2
    assert not torch.allclose(encoder({"a": (x + y) / 2}), middle, atol=1e-3)
    with pytest.raises(ConfigError, match="hidden_dims must be positive"):
        EncoderConfig(hidden_dims=(8, 0))


def test_encoder_takes_a_registered_type_and_lists_known_ones() -> None:
    @register_field_encoder("test_mean")
    class MeanEncoder(FieldEncoder):
        def __init__(self, field: ObsField) -> None:
            super().__init__()
            self.feature_dim = 1

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).mean(1, keepdim=True)

    encoder = ObservationEncoder({"depth": ObsField("test_mean", (4, 4))}, obs_horizon=3)
    assert encoder({"depth": torch.ones(5, 3, 4, 4)}).tolist() == [[1.0, 1.0, 1.0]] * 5
    with pytest.raises(UnknownNameError, match=r"unknown observation encoder 'lidar', known: .*low_dim"):
        ObservationEncoder({"scan": ObsField("lidar", (8,))}, obs_horizon=1)
