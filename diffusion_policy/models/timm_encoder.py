"""Backbones of the timm library as encoders of pictures: `encoder: {types: {rgb: {name: timm, model: convnext_atto}}}`.

timm is an extra; a policy that was trained with one needs it on the robot, too. Letters: B pictures.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsField
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.field_encoder import register_field_encoder
from diffusion_policy.models.resnet import group_norm
from diffusion_policy.models.view import View
from diffusion_policy.models.vision import ViewEncoder


class TimmTrunk(nn.Module):
    """The last maps of a timm model: (B, C, h, w) -> (B, out_channels, h', w'). BatchNorm becomes GroupNorm.

    Args:
        model: timm's name of it.
        in_channels: C.

    Raises:
        ConfigError: timm is not installed, does not know the model, or has no maps of it.
    """

    def __init__(self, model: str, in_channels: int = 3) -> None:
        super().__init__()
        self._model, self._in_channels = model, in_channels
        self.body = self._made(pretrained=False)
        self.out_channels = int(self.body.feature_info.channels()[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Returns the maps."""
        maps: Tensor = self.body(x)[0]
        return maps

    def load_pretrained(self) -> None:
        """Takes the weights that timm publishes; those of BatchNorm, which is another norm here, are left out."""
        published = self._made(pretrained=True).state_dict()
        self.body.load_state_dict(published)

    def _made(self, *, pretrained: bool) -> Any:
        timm = _timm()
        try:
            body = timm.create_model(
                self._model, pretrained=pretrained, features_only=True, out_indices=(-1,), in_chans=self._in_channels
            )
        except (RuntimeError, ValueError, AttributeError, TypeError, OSError) as error:
            raise ConfigError(
                f"timm could not make '{self._model}' ({error}); timm.list_models() names those that it knows"
            ) from error
        return _without_batch_norm(body)


@register_field_encoder("timm")
class TimmEncoder(ViewEncoder):
    """Any convolutional backbone of timm, with a spatial softmax behind it.

    Args:
        field: the pictures.
        model: timm's name of the backbone.
        pretrained: begin with timm's published weights, fetched when a training begins; pixels are then scaled as on
            ImageNet.
        num_keypoints: K.
        feature_dim: F.
        view: `resize` and `crop` of `View`.
    """

    def __init__(
        self,
        field: ObsField,
        *,
        model: str,
        pretrained: bool = False,
        num_keypoints: int = 32,
        feature_dim: int = 64,
        **view: Any,
    ) -> None:
        seen = View(field.shape, imagenet=pretrained, **view)
        trunk = TimmTrunk(model, seen.channels)
        super().__init__(seen, trunk, num_keypoints=num_keypoints, feature_dim=feature_dim)
        self._pretrained = pretrained

    def load_pretrained(self) -> None:
        """Fetches the published weights, if the settings ask for them."""
        if self._pretrained:
            self.network[0].load_pretrained()  # type: ignore[operator]


def _timm() -> ModuleType:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise ConfigError(
            f"encoder timm needs the timm library, but importing it failed ({error}); pip install "
            f"'diffusion-policy[timm]', with a torchvision that fits your torch"
        ) from error
    module: ModuleType = timm
    return module


def _without_batch_norm(module: nn.Module) -> nn.Module:
    """Puts GroupNorm in the place of every BatchNorm, as Chi et al. 2023: EMA does not average running statistics."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
            norm: nn.Module = group_norm(child.num_features)
            # timm's own kinds also drop out and activate
            parts = [part for part in (getattr(child, "drop", None), getattr(child, "act", None)) if part is not None]
            setattr(module, name, nn.Sequential(norm, *parts) if parts else norm)
        else:
            _without_batch_norm(child)
    return module
