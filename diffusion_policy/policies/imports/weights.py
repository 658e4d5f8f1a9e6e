"""From other people's names of weights to ours: the U-Net, the ResNet with its keypoints, the normalisers.

Letters: K keypoints, F features, C channels.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_policy.errors import CheckpointError

# torchvision's resnet without its head, as a Sequential: what each place holds here; 2 and 3 have no weights
_STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_BATCH_NORM_EPS = 1e-5  # torch's, which torchvision leaves as it is


class Weights:
    """Named tensors, each of which is to be taken once.

    Args:
        tensors: of a checkpoint.
        what: how to call it in messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], what: str) -> None:
        self._tensors, self.what = dict(tensors), what

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self, prefix: str = "") -> list[str]:
        """Returns the names that begin so."""
        return [name for name in self._tensors if name.startswith(prefix)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of one."""
        return tuple(self._found(name).shape)

    def take(self, name: str) -> Tensor:
        """Returns one, float32."""
        value = self._found(name)
        del self._tensors[name]
        return value.float()

    def drop(self, names: Iterable[str]) -> None:
        """Leaves out what is not needed."""
        for name in list(names):
            self._tensors.pop(name, None)

    def require_empty(self) -> None:
        """Raises where something is left that nobody has taken."""
        if self._tensors:
            some = ", ".join(list(self._tensors)[:3])
            raise CheckpointError(
                f"{self.what} has {len(self._tensors)} weights that this version does not know what to do with: {some}"
            )

    def _found(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise CheckpointError(f"{self.what} lacks the weights {name}; it is damaged, or of another network")
        return self._tensors[name]


@dataclass(frozen=True)
class UnetSizes:
    """What the weights themselves say of a U-Net: nothing larger than the file can be made of it."""

    action_dim: int
    cond_dim: int
    down_dims: tuple[int, ...]
    kernel_size: int
    embed_dim: int
    cond_predict_scale: bool


def unet_sizes(weights: Mapping[str, Tensor], what: str) -> UnetSizes:
    """Returns the sizes of a U-Net whose weights have our names."""
    try:
        embed_dim = weights["diffusion_step_encoder.1.weight"].shape[1]
        firsts: list[torch.Size] = []
        while (name := f"down_modules.{len(firsts)}.0.blocks.0.block.0.weight") in weights:
            firsts.append(weights[name].shape)
        film, width = weights["down_modules.0.0.cond_encoder.1.weight"].shape
        down_dims = tuple(int(shape[0]) for shape in firsts)
        return UnetSizes(
            action_dim=int(weights["final_conv.1.weight"].shape[0]),
            cond_dim=int(width - embed_dim),
            down_dims=down_dims,
            kernel_size=int(firsts[0][2]),
            embed_dim=int(embed_dim),
            cond_predict_scale=film == 2 * down_dims[0],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{what} has no temporal U-Net of a known layout (at {error})") from error


def resnet_norm(weights: Weights, backbone: str) -> str:
    """Returns "fixed" for a network with BatchNorm, "group" for others; see `models.resnet`."""
    return "fixed" if f"{backbone}1.running_mean" in weights else "group"


def take_resnet(weights: Weights, backbone: str) -> dict[str, Tensor]:
    """Returns a ResNet-18's weights by our names, and takes them.

    A BatchNorm in evaluation scales and shifts by fixed numbers, which are all that is kept of it.

    Args:
        weights: of a checkpoint.
        backbone: what names of the convolutions begin with, a Sequential of torchvision's children.
    """
    made: dict[str, Tensor] = {}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name in weights.names(backbone):
        if name.endswith(statistics) or name not in weights:
            continue
        place, _, rest = name.removeprefix(backbone).partition(".")
        if place not in _STAGES:
            raise CheckpointError(f"{weights.what}: {name} is no part of a ResNet-18")
        stem, _, last = name.rpartition(".")
        ours = f"{_STAGES[place]}.{rest}"
        if f"{stem}.running_mean" not in weights:
            made[ours] = weights.take(name)
        elif last == "weight":
            scale, shift = _fixed(weights, stem)
            made[ours], made[ours.removesuffix("weight") + "bias"] = scale, shift
    return made


def _fixed(weights: Weights, stem: str) -> tuple[Tensor, Tensor]:
    """Returns what a BatchNorm in evaluation multiplies by and adds."""
    weight, bias, mean, variance = (
        weights.take(f"{stem}.{name}").double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    weights.drop([f"{stem}.num_batches_tracked"])
    scale = weight / (variance + _BATCH_NORM_EPS).sqrt()
    return scale.float(), (bias - mean * scale).float()


def take_keypoints(
    weights: Weights, pool: str, linear: str, temperature: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the weights of the spatial softmax and of the layer behind it by our names, and takes them.

    Theirs gives x and y of each keypoint in turn, ours all x, then all y. Their bias adds the same to every place of a
    map, which a softmax does not see.
    """
    maps = weights.take(f"{pool}weight") / temperature  # (K, C, 1, 1)
    weights.drop([f"{pool}bias"])
    matrix = weights.take(f"{linear}weight")  # (F, 2 K)
    if matrix.ndim != 2 or matrix.shape[1] != 2 * len(maps):
        raise CheckpointError(f"{weights.what}: {linear}weight is {tuple(matrix.shape)}, expected (F, {2 * len(maps)})")
    by_axis = torch.cat([matrix[:, 0::2], matrix[:, 1::2]], dim=1)
    return {"to_keypoints.weight": maps}, {"weight": by_axis, "bias": weights.take(f"{linear}bias")}


def prefixed(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under longer names."""
    return {prefix + name: value for name, value in weights.items()}


@dataclass(frozen=True)
class Affine:
    """y = scale * x + offset, as `LinearNormalizer` has it; float64 (D,)."""

    scale: Tensor
    offset: Tensor

    def of_size(self, size: int, key: str) -> "Affine":
        """Returns this for a field of so many numbers.

        Raises:
            CheckpointError: the statistics are of another number of them.
        """
        scale, offset = self.scale.reshape(-1).double(), self.offset.reshape(-1).double()
        if {len(scale), len(offset)} - {1, size}:
            raise CheckpointError(f"normalisation of {key} has {len(scale)} numbers, expected {size}")
        return Affine(scale.expand(size), offset.expand(size))

    def weights(self, prefix: str, shape: tuple[int, ...], key: str) -> dict[str, Tensor]:
        """Returns the buffers of a normaliser of a field of a shape."""
        sized = self.of_size(math.prod(shape), key)
        return {
            f"{prefix}.scale": sized.scale.float().reshape(shape),
            f"{prefix}.offset": sized.offset.float().reshape(shape),
        }

    def pixel_mean_and_std(self, channels: int, key: str) -> dict[str, list[float]]:
        """Returns the settings of `View` that say the same of pixels in [0, 1]."""
        sized = self.of_size(channels, key)
        return {"mean": (-sized.offset / sized.scale).tolist(), "std": (1 / sized.scale).tolist()}
