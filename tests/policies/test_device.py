"""One function says which device computes, for commands, policies and controllers alike."""

from pathlib import Path

import pytest
import torch

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.device import pick_device
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
