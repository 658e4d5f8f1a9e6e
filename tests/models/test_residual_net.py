"""SynthER's network: its published sizes, and what its parts see."""

import pytest
import torch

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.embedding import FourierEmbedding
from diffusion_policy.models.residual_net import ResidualNet, ResidualNetConfig

SMALL = ResidualNetConfig(width=32, blocks=2, embed_dim=16, fourier_dim=8)


@pytest.mark.parametrize(("width", "millions"), [(1024, 6.5), (2048, 25.5)])
def test_sizes_are_the_published_ones(width: int, millions: float) -> None:
    with torch.device("meta"):
        net = ResidualNet(36, ResidualNetConfig(width=width))  # HalfCheetah: 2 x 17 + 6 + 1, less or more
    assert sum(each.numel() for each in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_answer_depends_on_every_input_and_on_the_time() -> None:
    torch.manual_seed(0)
    net = ResidualNet(5, SMALL)
    x, t = torch.randn(1, 5, requires_grad=True), torch.tensor([0.3], requires_grad=True)
    net(x, t).square().sum().backward()
    assert (x.grad != 0).all()
    assert (t.grad != 0).all()


def test_rows_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    net = ResidualNet(5, SMALL).eval()
    x, t = torch.randn(6, 5), torch.randn(6)
    torch.testing.assert_close(net(x, t)[2:4], net(x[2:4], t[2:4]))


def test_fourier_features_are_kept_with_the_weights() -> None:
    torch.manual_seed(0)
    first, second = FourierEmbedding(8), FourierEmbedding(8)
    t = torch.linspace(-2, 2, 7)
    assert not torch.equal(first(t), second(t))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(t), second(t))
    assert first(t).shape == (7, 9)
    torch.testing.assert_close(first(t)[:, 1:5] ** 2 + first(t)[:, 5:] ** 2, torch.ones(7, 4))


def test_blocks_in_bfloat16_are_nearly_the_same_and_leave_the_original_alone() -> None:
    torch.manual_seed(0)
    net = ResidualNet(5, SMALL).eval()
    half = net.with_blocks_in(torch.bfloat16)
    x, t = torch.randn(64, 5), torch.randn(64)
    found, expected = half(x, t), net(x, t)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.02
    assert net.body[0].weight.dtype == torch.float32


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="positive"):
        ResidualNetConfig(width=0)
    with pytest.raises(ConfigError, match="even"):
        FourierEmbedding(7)
