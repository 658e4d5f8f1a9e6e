"""What an encoder sees of a picture: resized, cropped, scaled; on the whole batch, on its device.

Letters: B pictures, H x W x C a recorded picture, h x w what is seen of it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.errors import ConfigError

# Means and deviations of the pictures that published ImageNet weights were trained on, of values in [0, 1].
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class View(nn.Module):
    """uint8 (B, H, W, C) -> float32 (B, C, h, w), laid out channels last.

    In training each picture is cropped at a random place of its own, in evaluation at its centre (Chi et al. 2023,
    section 3.2).

    Args:
        shape: (H, W, C).
        resize: (height, width) before the crop; None leaves the size.
        crop: (height, width), or the share of each side that is kept; None keeps all.
        crop_at: (top, left) of the crop in evaluation; None for the middle, rounded down. Others round otherwise.
        imagenet: scale as ImageNet weights expect it; otherwise 0-255 becomes [-1, 1].
        mean: of each channel, of values in [0, 1], to be subtracted; None for what `imagenet` says.
        std: of each channel, to be divided by; given with `mean`.

    Attributes:
        size: (h, w).
        kept: share of the frame that the crop keeps.

    Raises:
        ConfigError: the shape is no picture's, or the crop is larger than the frame.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        resize: tuple[int, int] | None = None,
        crop: tuple[int, int] | float | None = None,
        crop_at: tuple[int, int] | None = None,
        imagenet: bool = False,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        height, width, self.channels = _picture(shape)
        self.resize = None if resize is None else _size("resize", resize)
        frame = self.resize or (height, width)
        self.crop = None if crop is None else _crop(crop, frame)
        self.size = self.crop or frame
        self.imagenet = imagenet
        self.kept = math.prod(self.size) / math.prod(frame)
        if imagenet and self.channels != 3:
            raise ConfigError(f"ImageNet weights see 3 channels, but the picture has {self.channels}")
        self.crop_at = None if crop_at is None else _corner(crop_at, self.size, frame)
        means, stds = (torch.tensor(numbers) for numbers in _scaling(self.channels, imagenet, mean, std))
        # constants that follow from the configuration: they move with the module and are not saved
        # one number for each of a row, (w C,): rows are scaled 7 times faster than runs of three channels
        self.register_buffer("scale", (1 / (255 * stds)).repeat(self.size[1]), persistent=False)
        self.register_buffer("offset", (-means / stds).repeat(self.size[1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, C, h, w)."""
        if self.resize is not None and self.resize != tuple(x.shape[1:3]):
            # antialiased: a plain bilinear one skips pixels of a large frame, and small things flicker
            resized = F.interpolate(x.permute(0, 3, 1, 2).float(), self.resize, mode="bilinear", antialias=True)
            x = resized.permute(0, 2, 3, 1)
        if self.crop is not None:
            x = random_crop(x, self.crop) if self.training else self._evaluation_crop(x, self.crop)
        # in place: every further array of this size costs as much in fresh memory pages as in arithmetic
        rows = x.to(torch.float32, copy=True).flatten(2)  # (B, h, w C)
        return rows.mul_(self.scale).add_(self.offset).view(x.shape).permute(0, 3, 1, 2)

    def _evaluation_crop(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.crop_at is None:
            return center_crop(x, size)
        top, left = self.crop_at
        return x[:, top : top + size[0], left : left + size[1]]


def random_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns (B, h, w, C) of x (B, H, W, C), each picture cropped at a place drawn from torch's generator."""
    batch, height, width, channels = x.shape
    h, w = size
    top = torch.randint(height - h + 1, (batch, 1), device=x.device)
    left = torch.randint(width - w + 1, (batch, 1), device=x.device)
    picture = torch.arange(batch, device=x.device)[:, None]
    rows = picture * height + top + torch.arange(h, device=x.device)  # (B, h)
    # Every run of w C neighbouring numbers is a row of this view: one gather, 5 times faster than indexing two axes.
    runs = x.contiguous().view(-1).unfold(0, w * channels, 1)
    return runs.index_select(0, ((rows * width + left) * channels).view(-1)).view(batch, h, w, channels)


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns (B, h, w, C), the middle of x (B, H, W, C)."""
    top, left = (x.shape[1] - size[0]) // 2, (x.shape[2] - size[1]) // 2
    return x[:, top : top + size[0], left : left + size[1]]


def _picture(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[2] > min(shape[:2]):
        swapped = f"; channels come last: write {[*shape[1:], shape[0]]}" if len(shape) == 3 else ""
        raise ConfigError(f"a picture must have shape (height, width, channels), but got {shape}{swapped}")
    return shape[0], shape[1], shape[2]


def _size(name: str, size: object) -> tuple[int, int]:
    sides = size if isinstance(size, (tuple, list)) else ()
    whole = [isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sides]
    if len(whole) != 2 or not all(whole):
        shown = list(size) if isinstance(size, tuple) else size
        raise ConfigError(f"{name} must be [height, width] in pixels, but got {shown!r}")
    return sides[0], sides[1]


def _corner(corner: object, size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    room = (frame[0] - size[0], frame[1] - size[1])
    match corner:
        case (int(top), int(left)) if 0 <= top <= room[0] and 0 <= left <= room[1]:
            return top, left
    raise ConfigError(f"crop_at must be [top, left] in pixels, at most {list(room)}, but got {corner!r}")


def _scaling(
    channels: int, imagenet: bool, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns what is subtracted from, and what divides, each channel of pixels in [0, 1]."""
    if mean is None and std is None:
        return (_IMAGENET_MEAN, _IMAGENET_STD) if imagenet else ((0.5,) * channels, (0.5,) * channels)
    given = (mean, std)
    if any(not isinstance(each, tuple) or len(each) != channels for each in given) or not all(n > 0 for n in std or ()):
        raise ConfigError(f"mean and std must be {channels} numbers each, std positive, but got {mean!r} and {std!r}")
    return mean, std  # type: ignore[return-value]  # checked above


def _crop(crop: tuple[int, int] | float, frame: tuple[int, int]) -> tuple[int, int]:
    """Returns the crop in pixels."""
    if isinstance(crop, (int, float)) and not isinstance(crop, bool):
        if not 0 < crop <= 1:
            raise ConfigError(f"crop must be [height, width], or a share in (0, 1], but got {crop}")
        height, width = (max(1, round(crop * side)) for side in frame)
    else:
        height, width = _size("crop", crop)
    if height > frame[0] or width > frame[1]:
        raise ConfigError(
            f"crop {height}x{width} must lie within the frame of {frame[0]}x{frame[1]}; make it smaller, or set resize"
        )
    return height, width
