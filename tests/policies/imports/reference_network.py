"""The reference repository's networks written down a second time, as formulas over its own names of weights.

From the published architecture (Chi et al. 2023, section IV and appendix; robomimic 0.2's VisualCore): plain
`torch.nn.functional`, channels first, nothing of the package under test.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def unet_shapes(prefix: str, action: int, cond: int, embed: int, dims: list[int], kernel: int, scale: bool) -> dict:
    """Returns the names and shapes of a U-Net's weights."""
    made: dict[str, list[int]] = {}

    def layer(name: str, *shape: int) -> None:
        made[f"{prefix}{name}.weight"] = list(shape)
        made[f"{prefix}{name}.bias"] = [shape[1] if "2.conv" in name and "up_" in name else shape[0]]

    def norm(name: str, size: int) -> None:
        made[f"{prefix}{name}.weight"], made[f"{prefix}{name}.bias"] = [size], [size]

    def block(name: str, a: int, b: int) -> None:
        for place, width in ((0, a), (1, b)):
            layer(f"{name}.blocks.{place}.block.0", b, width, kernel)
            norm(f"{name}.blocks.{place}.block.1", b)
        layer(f"{name}.cond_encoder.1", b * (1 + scale), embed + cond)
        if a != b:
            layer(f"{name}.residual_conv", b, a, 1)

    layer("diffusion_step_encoder.1", 4 * embed, embed)
    layer("diffusion_step_encoder.3", embed, 4 * embed)
    for place, (a, b) in enumerate(zip([action, *dims[:-1]], dims, strict=True)):
        block(f"down_modules.{place}.0", a, b)
        block(f"down_modules.{place}.1", b, b)
        if place + 1 < len(dims):
            layer(f"down_modules.{place}.2.conv", b, b, 3)
    for place in (0, 1):
        block(f"mid_modules.{place}", dims[-1], dims[-1])
    for place, (a, b) in enumerate(zip(dims[-2::-1], dims[:0:-1], strict=True)):
        block(f"up_modules.{place}.0", 2 * b, a)
        block(f"up_modules.{place}.1", a, a)
        layer(f"up_modules.{place}.2.conv", a, a, 4)
    layer("final_conv.0.block.0", dims[0], dims[0], kernel)
    norm("final_conv.0.block.1", dims[0])
    layer("final_conv.1", action, dims[0], 1)
    return made


def unet(w: State, prefix: str, x: Tensor, t: Tensor, cond: Tensor, groups: int, scale: bool) -> Tensor:
    """Returns what the network says of x (B, Tp, Da) at t (B,) under cond (B, Dc)."""

    def at(name: str) -> tuple[Tensor, Tensor]:
        return w[f"{prefix}{name}.weight"], w[f"{prefix}{name}.bias"]

    def conv_block(name: str, h: Tensor, n_groups: int) -> Tensor:
        weight, bias = at(f"{name}.block.0")
        h = F.conv1d(h, weight, bias, padding=weight.shape[2] // 2)
        return F.mish(F.group_norm(h, n_groups, *at(f"{name}.block.1")))

    def block(name: str, h: Tensor, g: Tensor) -> Tensor:
        out = conv_block(f"{name}.blocks.0", h, groups)
        film = F.linear(F.mish(g), *at(f"{name}.cond_encoder.1"))[..., None]
        if scale:
            half = film.shape[1] // 2
            out = film[:, :half] * out + film[:, half:]
        else:
            out = out + film
        out = conv_block(f"{name}.blocks.1", out, groups)
        has = f"{prefix}{name}.residual_conv.weight" in w
        return out + (F.conv1d(h, *at(f"{name}.residual_conv")) if has else h)

    embed = w[f"{prefix}diffusion_step_encoder.1.weight"].shape[1]
    rates = torch.exp(-math.log(10000) / (embed // 2 - 1) * torch.arange(embed // 2))
    phase = t[:, None] * rates
    g = F.linear(torch.cat([phase.sin(), phase.cos()], 1), *at("diffusion_step_encoder.1"))
    g = torch.cat([F.linear(F.mish(g), *at("diffusion_step_encoder.3")), cond], 1)
    levels = sum(f"{prefix}down_modules.{place}.0.blocks.0.block.0.weight" in w for place in range(9))
    h, skips = x.mT, []
    for place in range(levels):
        h = block(f"down_modules.{place}.1", block(f"down_modules.{place}.0", h, g), g)
        skips.append(h)
        if place + 1 < levels:
            h = F.conv1d(h, *at(f"down_modules.{place}.2.conv"), stride=2, padding=1)
    for place in (0, 1):
        h = block(f"mid_modules.{place}", h, g)
    for place in range(levels - 1):
        h = block(f"up_modules.{place}.0", torch.cat([h, skips.pop()], 1), g)
        h = block(f"up_modules.{place}.1", h, g)
        h = F.conv_transpose1d(h, *at(f"up_modules.{place}.2.conv"), stride=2, padding=1)
    return F.conv1d(conv_block("final_conv.0", h, 8), *at("final_conv.1")).mT  # 8 groups, whatever `groups` is


def resnet_shapes(prefix: str, norm: str) -> dict[str, list[int]]:
    """Returns the names and shapes of a ResNet-18 without head, as a Sequential; `norm` is "group" or "batch"."""
    made: dict[str, list[int]] = {}

    def normed(name: str, size: int) -> None:
        names = ["weight", "bias"] + (["running_mean", "running_var"] if norm == "batch" else [])
        made.update({f"{prefix}{name}.{each}": [size] for each in names})
        if norm == "batch":
            made[f"{prefix}{name}.num_batches_tracked"] = []

    made[f"{prefix}0.weight"] = [64, 3, 7, 7]
    normed("1", 64)
    width = 64
    for stage, size in zip("4567", (64, 128, 256, 512), strict=True):
        for place in (0, 1):
            for conv, a in ((1, width), (2, size)):
                made[f"{prefix}{stage}.{place}.conv{conv}.weight"] = [size, a, 3, 3]
                normed(f"{stage}.{place}.bn{conv}", size)
            if width != size:
                made[f"{prefix}{stage}.{place}.downsample.0.weight"] = [size, width, 1, 1]
                normed(f"{stage}.{place}.downsample.1", size)
            width = size
    return made


def resnet(w: State, prefix: str, x: Tensor) -> Tensor:
    """Returns the maps (B, 512, h, w) of pictures (B, 3, H, W)."""

    def norm(name: str, h: Tensor) -> Tensor:
        stem = f"{prefix}{name}"
        weight, bias = w[f"{stem}.weight"], w[f"{stem}.bias"]
        if f"{stem}.running_mean" in w:
            return F.batch_norm(h, w[f"{stem}.running_mean"], w[f"{stem}.running_var"], weight, bias)
        return F.group_norm(h, len(weight) // 16, weight, bias)

    h = F.relu(norm("1", F.conv2d(x, w[f"{prefix}0.weight"], stride=2, padding=3)))
    h = F.max_pool2d(h, 3, 2, 1)
    for stage in "4567":
        for place in (0, 1):
            stride = 2 if stage != "4" and place == 0 else 1
            stem = f"{stage}.{place}"
            out = F.conv2d(h, w[f"{prefix}{stem}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(F.relu(norm(f"{stem}.bn1", out)), w[f"{prefix}{stem}.conv2.weight"], padding=1)
            if f"{prefix}{stem}.downsample.0.weight" in w:
                h = norm(f"{stem}.downsample.1", F.conv2d(h, w[f"{prefix}{stem}.downsample.0.weight"], stride=stride))
            h = F.relu(norm(f"{stem}.bn2", out) + h)
    return h


def visual_core(w: State, prefix: str, x: Tensor) -> Tensor:
    """Returns robomimic's features (B, F) of pictures (B, 3, H, W), behind the ReLU of its observation encoder."""
    maps = F.conv2d(resnet(w, f"{prefix}0.nets.", x), w[f"{prefix}1.nets.weight"], w[f"{prefix}1.nets.bias"])
    attention = (maps.flatten(2) / w[f"{prefix}1.temperature"]).softmax(-1).unflatten(2, maps.shape[2:])
    x_at = (attention.sum(2) * torch.linspace(-1, 1, maps.shape[3])).sum(-1)  # (B, K)
    y_at = (attention.sum(3) * torch.linspace(-1, 1, maps.shape[2])).sum(-1)
    points = torch.stack([x_at, y_at], -1).flatten(1)  # x and y of each in turn
    return F.relu(F.linear(points, w[f"{prefix}3.weight"], w[f"{prefix}3.bias"]))
