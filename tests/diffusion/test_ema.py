import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from diffusion_policy.diffusion.ema import EMA
from diffusion_policy.errors import ConfigError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.frozen = nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Linear(4, 2)
        self.frozen.requires_grad_(False)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))


def _perturb(net: Net) -> None:
    with torch.no_grad():
        for tensor in (*net.parameters(), net.scale):
            tensor.add_(torch.randn_like(tensor))
        net.count += 1


@pytest.mark.parametrize(
    "settings", [{}, {"power": 2 / 3, "inv_gamma": 5.0}, {"update_after_step": 7, "min_decay": 0.3}]
)
def test_ema_decay_equals_diffusers(settings):
    net = Net()
    oracle = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, **{"power": 0.75, **settings})
    ema = EMA(net, **settings)
    for num_updates in (*range(60), 1_000, 10_000, 1_000_000):
        assert ema.decay_at(num_updates) == oracle.get_decay(num_updates)


def test_ema_decay_has_the_papers_milestones():
    ema = EMA(Net())
    assert ema.decay_at(1) == 0
    assert ema.decay_at(2) == 1 - 2**-0.75
    assert ema.decay_at(10_000) == pytest.approx(0.999, abs=1e-6)
    assert ema.decay_at(10**7) == 0.9999


def test_ema_weights_equal_diffusers():
    torch.manual_seed(0)
    net = Net()
    ema, oracle = EMA(net), EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, power=0.75)
    for _ in range(20):
        _perturb(net)
        ema.step(net)
        oracle.step(net.parameters())
    for ours, theirs in zip(ema.model.parameters(), oracle.shadow_params, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_ema_first_update_copies_and_later_ones_average():
    torch.manual_seed(0)
    net = Net()
    ema = EMA(net)
    _perturb(net)
    ema.step(net)
    first = net.linear.weight.detach().clone()
    assert torch.equal(ema.model.linear.weight, first)
    _perturb(net)
    ema.step(net)
    keep = 1 - 2**-0.75
    torch.testing.assert_close(ema.model.linear.weight, keep * first + (1 - keep) * net.linear.weight)


def test_ema_copies_buffers_and_frozen_parameters():
    net = Net()
    ema = EMA(net)
    for _ in range(3):
        _perturb(net)
        ema.step(net)
    assert torch.equal(ema.model.scale, net.scale)
    assert torch.equal(ema.model.frozen.weight, net.frozen.weight)
    assert ema.model.count == 3
    assert not torch.equal(ema.model.linear.weight, net.linear.weight)


def test_ema_model_is_a_still_copy():
    net = Net().train()
    ema = EMA(net)
    assert not ema.model.training
    assert net.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert net.linear.weight.requires_grad
    before = ema.model.linear.weight.clone()
    _perturb(net)
    assert torch.equal(ema.model.linear.weight, before)


def test_ema_copy_to_overwrites_weights_and_buffers():
    torch.manual_seed(0)
    net, other = Net(), Net()
    ema = EMA(net)
    for _ in range(3):
        _perturb(net)
        ema.step(net)
    ema.copy_to(other)
    for name, tensor in ema.model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    assert other.linear.weight.requires_grad


def test_ema_resumed_equals_uninterrupted(tmp_path):
    torch.manual_seed(0)
    net = Net()
    whole = EMA(net)
    for _ in range(5):
        _perturb(net)
        whole.step(net)
    torch.save(whole.state_dict(), tmp_path / "ema.pt")
    resumed = EMA(Net())
    resumed.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    for _ in range(5):
        _perturb(net)
        whole.step(net)
        resumed.step(net)
    assert resumed.num_updates == whole.num_updates == 10
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)


def test_ema_refuses_batch_norm_and_names_the_remedy():
    with pytest.raises(ConfigError, match=r"1 .*of 1.*GroupNorm"):
        EMA(nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)))
    EMA(nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)))


def test_ema_refuses_bounds_out_of_order():
    with pytest.raises(ConfigError, match="min_decay"):
        EMA(Net(), min_decay=0.5, max_decay=0.4)
