"""ResNet-18 (He et al. 2016) with GroupNorm, for (B, C, h, w) pictures.

BatchNorm's running statistics and averaged weights (EMA) do not belong together; Chi et al. 2023 (section 3.2) put
GroupNorm in its place. Parameters have torchvision's names, so that its ImageNet file loads.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.errors import CheckpointError, ConfigError

_CHANNELS_PER_GROUP = 16  # as in the source


def group_norm(channels: int) -> nn.GroupNorm:
    """Returns a GroupNorm of 16 channels a group, or of a few more where the channels cannot be shared out so."""
    most = max(1, channels // _CHANNELS_PER_GROUP)
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


class ChannelAffine(nn.Module):
    """Scales and shifts each channel of (B, C, h, w): a trained BatchNorm whose statistics stay as they are.

    It comes with weights of others only (see `policies.imports`); networks that learn here have GroupNorm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, h, w)."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


Norm = Callable[[int], nn.Module]
NORMS: dict[str, Norm] = {"group": group_norm, "fixed": ChannelAffine}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first of a stage may halve height and width."""

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm = group_norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.downsample = nn.Sequential()
        if stride > 1 or in_channels != channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, channels, h / stride, w / stride)."""
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + self.downsample(x))


class ResNet18(nn.Module):
    """The convolutions of ResNet-18: (B, C, h, w) -> (B, 512, h / 32, w / 32), rounded up.

    Args:
        in_channels: C.
        norm: "group", or "fixed" for a `ChannelAffine` in its place.
    """

    out_channels = 512

    def __init__(self, in_channels: int = 3, norm: str = "group") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(f"norm must be {' or '.join(NORMS)}, but got {norm!r}")
        made = NORMS[norm]
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = made(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, 1, made)
        self.layer2 = _stage(64, 128, 2, made)
        self.layer3 = _stage(128, 256, 2, made)
        self.layer4 = _stage(256, 512, 2, made)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as torchvision begins
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, 512, h / 32, w / 32)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]

    def load_imagenet(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Takes the convolutions of torchvision's resnet18; the norms, which are others here, keep their beginning.

        Args:
            weights: its state_dict.
            where: the file, for messages.

        Raises:
            CheckpointError: a convolution is missing or has another shape.
        """
        own = {name: value for name, value in self.state_dict().items() if value.ndim == 4}
        for name, value in own.items():
            given = weights.get(name)
            if given is None or given.shape != value.shape:
                got = "nothing" if given is None else tuple(given.shape)
                raise CheckpointError(
                    f"{where}: expected torchvision's resnet18 with {name} {tuple(value.shape)}, but got {got}"
                )
        self.load_state_dict({name: weights[name] for name in own}, strict=False)


def _stage(in_channels: int, channels: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_channels, channels, stride, norm), BasicBlock(channels, channels, 1, norm))
