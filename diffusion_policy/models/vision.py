"""Encoders of pictures, by name: `cnn_small` for CPUs, `resnet18` as published, `timm` for other people's backbones.

Letters: B pictures, H x W x C a picture, K keypoints, F features.
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsField
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError
from diffusion_policy.models.field_encoder import FieldEncoder, register_field_encoder
from diffusion_policy.models.resnet import ResNet18, group_norm
from diffusion_policy.models.view import View


class SpatialSoftmax(nn.Module):
    """Where each of K learned features lies in the picture: (B, C, h, w) -> (B, 2 K), x then y, in [-1, 1].

    The softmax over the places is an attention, the expected place under it a keypoint (Finn et al. 2016, Levine et
    al. 2016). It works for any h x w.
    """

    def __init__(self, channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.to_keypoints = nn.Conv2d(channels, num_keypoints, 1, bias=False)  # a softmax would not notice one

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, 2 K)."""
        # float32 under autocast: places are sums over the whole picture
        logits = self.to_keypoints(x).float().flatten(2)  # (B, K, h w)
        height, width = x.shape[2:]
        attention = logits.softmax(dim=-1).unflatten(2, (height, width))
        across = torch.linspace(-1.0, 1.0, width, device=x.device)
        down = torch.linspace(-1.0, 1.0, height, device=x.device)
        return torch.cat([(attention.sum(2) * across).sum(2), (attention.sum(3) * down).sum(2)], dim=1)


class ViewEncoder(FieldEncoder):
    """View, convolutions, spatial softmax, linear: (B, H, W, C) uint8 -> (B, F).

    Args:
        view: what is seen of the picture.
        trunk: convolutions, pictures (B, C, h, w) to maps of `trunk.out_channels`.
        num_keypoints: K.
        feature_dim: F.
        relu: whether features that are negative become 0, as in robomimic and LeRobot.
    """

    raw = True  # pixels are scaled here, after the crop

    def __init__(
        self, view: View, trunk: nn.Module, *, num_keypoints: int, feature_dim: int, relu: bool = False
    ) -> None:
        super().__init__()
        for size in (num_keypoints, feature_dim):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ConfigError(
                    f"num_keypoints and feature_dim must be positive whole numbers, but got {num_keypoints!r} and "
                    f"{feature_dim!r}"
                )
        _require_places(view, trunk)
        self.view, self.kept, self.feature_dim = view, view.kept, feature_dim
        pool = SpatialSoftmax(int(trunk.out_channels), num_keypoints)  # type: ignore[arg-type]
        self.network = nn.Sequential(trunk, pool, nn.Linear(2 * num_keypoints, feature_dim))
        if relu:
            self.network.append(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, F)."""
        return self.network(self.view(x))  # type: ignore[no-any-return]

    def share_weights(self, other: Self) -> None:
        """Makes `other`'s network this one's, too; each keeps its own view."""
        mine, theirs = ({k: v.shape for k, v in each.network.state_dict().items()} for each in (self, other))
        if mine != theirs or self.view.imagenet != other.view.imagenet:
            raise ConfigError(
                "fields that share weights must agree in channels, num_keypoints, feature_dim and published weights"
            )
        self.network = other.network


@torch.no_grad()
def _require_places(view: View, trunk: nn.Module) -> None:
    """Raises where the trunk leaves so small a map that a spatial softmax over it says nothing."""
    height, width = trunk(torch.zeros(1, view.channels, *view.size)).shape[2:]
    if min(height, width) < 2:
        raise ConfigError(
            f"{type(trunk).__name__} leaves a map of {height}x{width} of pictures of {view.size[0]}x{view.size[1]}, in "
            f"which nothing has a place; use larger pictures, less crop, or another encoder (cnn_small)"
        )


class SmallCNN(nn.Sequential):
    """Four strided convolutions, 0.3 M parameters: (B, C, h, w) -> (B, 128, h / 8, w / 8).

    Of 96 x 96 pixels it keeps a map of 12 x 12, fine enough for a spatial softmax to say where things are.
    """

    out_channels = 128

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__(
            nn.Conv2d(in_channels, 32, 5, stride=2, padding=2), group_norm(32), nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), group_norm(64), nn.SiLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1), group_norm(128), nn.SiLU(),
            nn.Conv2d(128, 128, 3, padding=1), group_norm(128), nn.SiLU(),
        )  # fmt: skip


@register_field_encoder("rgb")
@register_field_encoder("cnn_small")
class SmallCNNEncoder(ViewEncoder):
    """For CPUs; also what pictures (type `rgb`) get when nothing else is named.

    Args:
        field: the pictures.
        num_keypoints: K.
        feature_dim: F.
        view: `resize` and `crop` of `View`.
    """

    def __init__(self, field: ObsField, *, num_keypoints: int = 64, feature_dim: int = 64, **view: Any) -> None:
        seen = View(field.shape, **view)
        super().__init__(seen, SmallCNN(seen.channels), num_keypoints=num_keypoints, feature_dim=feature_dim)


@register_field_encoder("resnet18")
class ResNetEncoder(ViewEncoder):
    """ResNet-18 with GroupNorm, 32 keypoints, 64 features: the encoder of Chi et al. 2023.

    Args:
        field: the pictures.
        num_keypoints: K.
        feature_dim: F.
        weights: torchvision's ImageNet file of resnet18, read when a training begins; pixels are then scaled as these
            weights expect it.
        norm: "group", or "fixed" for the numbers of a BatchNorm that others have trained.
        relu: see `ViewEncoder`.
        view: settings of `View`, e.g. `resize` and `crop`.
    """

    def __init__(
        self,
        field: ObsField,
        *,
        num_keypoints: int = 32,
        feature_dim: int = 64,
        weights: str | None = None,
        norm: str = "group",
        relu: bool = False,
        **view: Any,
    ) -> None:
        seen = View(field.shape, imagenet=weights is not None, **view)
        self._weights = weights
        trunk = ResNet18(seen.channels, norm)
        super().__init__(seen, trunk, num_keypoints=num_keypoints, feature_dim=feature_dim, relu=relu)

    def load_pretrained(self) -> None:
        """Reads `weights`, if there are any.

        Raises:
            MissingFileError: no such file.
            CheckpointError: it is not torchvision's resnet18.
        """
        if self._weights is None:
            return
        trunk = self.network[0]
        assert isinstance(trunk, ResNet18)  # the constructor's
        trunk.load_imagenet(read_weights(self._weights), self._weights)


def read_weights(path: str) -> dict[str, Tensor]:
    """Returns a state_dict of tensors; code in the file is refused.

    Raises:
        MissingFileError: no such file.
        CheckpointError: it holds something else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise MissingFileError(f"weights {file} do not exist; give the path of torchvision's resnet18 file, or drop it")
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader raise anything
        raise CheckpointError(f"{file} is cut short, or holds something other than weights; fetch it again") from error
    if not isinstance(weights, dict):
        raise CheckpointError(f"{file} must hold a state_dict, but holds {type(weights).__name__}")
    return weights
