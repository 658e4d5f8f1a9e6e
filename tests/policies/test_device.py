"""One function says which device computes, for commands, policies and controllers alike."""

from pathlib import Path

import pytest
import torch

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies import device as devices
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.device import fast_products, pick_device
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy

POLICY = Path(__file__).parents[1] / "fixtures" / "policy_format1.pt"


@pytest.mark.parametrize("device", ["cpu", "cpu:0", "auto", torch.device("cpu")])
def test_device_is_taken_by_name_or_as_torchs_own(device, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device(device).type == "cpu"
    assert DiffusionPolicy.load(POLICY, device=device).device.type == "cpu"


@pytest.mark.parametrize("load", [DiffusionPolicy.load, RecedingHorizonController.load])
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "device=cuda: this machine, or this build of torch, has none; use device=auto"),
        (torch.device("cuda:1"), "device=cuda:1: this machine, or this build of torch, has none"),
        ("banana", "device must be auto, cpu, cuda or mps, but got 'banana'"),
        ("xpu", "device must be auto, cpu, cuda or mps, but got 'xpu'"),
    ],
)
def test_device_that_is_not_here_is_refused_by_every_way_to_load(load, device, message, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        load(POLICY, device=device)


def test_device_number_beyond_the_last_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="device=cuda:1: this machine has 1, counted from cuda:0"):
        pick_device("cuda:1")


CPU = torch.device("cpu")


def test_fast_products_are_as_exact_as_float32s_and_torchs_setting_comes_back() -> None:
    a, b = torch.randn(2, 64, 300), torch.randn(2, 300, 64)
    exact = a.double() @ b.double()
    with fast_products(CPU):
        torch.testing.assert_close((a @ b).double(), exact, atol=1e-4, rtol=0)  # bfloat16: 0.1
        torch.testing.assert_close((a[0] @ b[0]).double(), exact[0], atol=1e-4, rtol=0)
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(KeyError), fast_products(CPU):
        raise KeyError
    assert torch.get_float32_matmul_precision() == "highest"


def test_fast_products_change_nothing_where_they_would_be_less_exact(monkeypatch) -> None:
    monkeypatch.setattr(devices, "_onednn_is_exact", lambda: False)
    with fast_products(CPU):
        assert torch.get_float32_matmul_precision() == "highest"


def test_trial_of_products_tells_bfloat16_from_float32(monkeypatch) -> None:
    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            a, b = (x.bfloat16().float() for x in (a, b))
        return torch.matmul(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not devices._onednn_is_exact.__wrapped__()


def test_precision_that_somebody_chose_is_left_alone() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with fast_products(CPU):
            assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
