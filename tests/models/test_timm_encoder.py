"""Backbones of timm: against a stand-in of its few calls, and the real library where it can be imported."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsField
from diffusion_policy.diffusion.ema import EMA
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.observation import EncoderConfig, ObservationEncoder
from diffusion_policy.models.timm_encoder import TimmTrunk

SPEC = {"front": ObsField("rgb", (48, 64, 3))}


class NormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: it activates."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()


class Body(nn.Module):
    def __init__(self, in_chans: int, filled: float | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 32, 3, stride=8)
        self.norm = NormAct(32)
        self.feature_info = SimpleNamespace(channels=lambda: [32])
        if filled is not None:
            nn.init.constant_(self.conv.weight, filled)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(x))]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, *, pretrained: bool, features_only: bool, out_indices: Any, in_chans: int) -> Body:
        assert features_only
        assert out_indices == (-1,)
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return Body(in_chans, 0.25 if pretrained else None)

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.usefixtures("stand_in")
def test_timm_backbone_has_group_norms_that_activate_and_takes_published_weights_when_asked() -> None:
    config = EncoderConfig(types={"rgb": {"name": "timm", "model": "tiny", "pretrained": True, "crop": 0.9}})
    made = ObservationEncoder(SPEC, 2, config)
    EMA(made)  # refuses running statistics
    trunk = made.encoders[0].network[0]  # type: ignore[index]
    assert trunk(torch.randn(2, 3, 32, 32)).min() == 0  # ReLU is still there
    assert not torch.all(trunk.body.conv.weight == 0.25)
    made.load_pretrained()
    assert torch.all(trunk.body.conv.weight == 0.25)
    assert made({"front": torch.zeros(3, 2, 48, 64, 3, dtype=torch.uint8)}).shape == (3, made.cond_dim)


@pytest.mark.usefixtures("stand_in")
def test_timm_backbone_that_is_unknown_is_named() -> None:
    with pytest.raises(ConfigError, match=r"obs\.front: timm could not make 'huge' \(Unknown model \(huge\)\)"):
        ObservationEncoder(SPEC, 2, EncoderConfig(types={"rgb": {"name": "timm", "model": "huge"}}))


def test_timm_that_is_not_installed_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"needs the timm library.*pip install 'diffusion-policy\[timm\]'"):
        TimmTrunk("resnet18")


@pytest.mark.parametrize("model", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_real_timm_backbones_encode(model: str) -> None:
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"the extra timm is not installed, or its torchvision does not fit: {error}")
    made = ObservationEncoder(
        {"front": ObsField("rgb", (96, 96, 3))}, 2, EncoderConfig(types={"rgb": {"name": "timm", "model": model}})
    )
    EMA(made)
    out = made({"front": torch.randint(256, (2, 2, 96, 96, 3), dtype=torch.uint8)})
    out.square().sum().backward()
    assert out.shape == (2, made.cond_dim)
