"""LeRobot's DiffusionPolicy: a folder with config.json and model.safetensors becomes a policy of ours.

Written to LeRobot 0.4.4. Its statistics of normalisation stand in files of the pre- and postprocessor, before 0.4
among the weights; both are read. `rename` steps are not applied: fields keep the names of config.json.

Letters: K keypoints of a camera, H x W x C its pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsField, ObsSpec
from diffusion_policy.errors import CheckpointError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.imports.assembly import (
    check_told,
    denoiser_section,
    diffusion_section,
    imported_policy,
    sampler_section,
    view_settings,
)
from diffusion_policy.policies.imports.foreign_settings import (
    MOST_NUMBERS,
    MOST_PIXELS,
    MOST_STEPS,
    Settings,
    read_json,
)
from diffusion_policy.policies.imports.lerobot_normalization import Normalization, read_normalization
from diffusion_policy.policies.imports.safetensors_file import read_safetensors
from diffusion_policy.policies.imports.weights import (
    Weights,
    prefixed,
    resnet_norm,
    take_keypoints,
    take_resnet,
    unet_sizes,
)

KIND = "LeRobot's DiffusionPolicy"
_ENCODER = "diffusion.rgb_encoder."
_MODES = {"MIN_MAX": "limits", "MEAN_STD": "gaussian", "IDENTITY": "identity"}


def read_lerobot(folder: Path) -> DiffusionPolicy:
    """Returns the policy in a folder that LeRobot's `save_pretrained` has written.

    It answers as the original with its processors: observations and actions are in the units of the robot. Pictures
    are bytes 0-255, height x width x channels (LeRobot's are floats 0-1, channels first).

    Args:
        folder: e.g. `checkpoints/last/pretrained_model`.

    Raises:
        MissingFileError: a file is missing.
        CheckpointError: another kind of policy, damaged, or with settings that this version does not have.
    """
    config = read_json(folder / "config.json")
    if config.text("type", "") != "diffusion":
        raise CheckpointError(f"{folder} holds a LeRobot policy of type {config.values.get('type')!r}, not 'diffusion'")
    if not config.has("input_features"):
        raise CheckpointError(f"{folder}: config.json has no input_features; load and save it with LeRobot 0.4")
    file = folder / "model.safetensors"
    # compiled models say so in every name
    tensors = {name.replace("._orig_mod", ""): value for name, value in read_safetensors(file).items()}
    weights = Weights(tensors, str(file))
    obs_spec = _obs_spec(config)
    normalization = read_normalization(folder, config, weights)

    unet = _take_unet(weights)
    sizes = unet_sizes(unet, str(file))
    told = {"down_dims": config.wholes("down_dims", 2**16), "kernel_size": config.whole("kernel_size", 99)}
    told["embed_dim"] = config.whole("diffusion_step_embed_dim", 2**16)
    told["cond_predict_scale"] = config.flag("use_film_scale_modulation", True)
    check_told(told, vars(sizes), str(folder))
    action = config.part("output_features").part("action").wholes("shape", MOST_NUMBERS)
    check_told({"action": action}, {"action": (sizes.action_dim,)}, str(folder))

    encoder = _encoder_section(config, obs_spec, weights, normalization)
    made = prefixed("denoiser.", unet) | _take_encoders(config, obs_spec, weights)
    made |= _normalizers(obs_spec, normalization, action)
    weights.require_empty()
    sections = {
        **_plain_sections(config, normalization),
        "denoiser": denoiser_section(sizes, config.whole("n_groups", 2**16, 8)),
        "encoder": encoder,
    }
    return imported_policy(sections, obs_spec, ActionSpec(shape=action), made, file, KIND)


def _plain_sections(config: Settings, normalization: Normalization) -> dict[str, Any]:
    """Returns the sections that no weights are needed for."""
    diffusion = diffusion_section(config)
    modes = {name: _MODES.get(normalization.mode(kind), "quantile") for name, kind in _FITTED.items()}
    return {
        "policy": {"name": "diffusion"},
        "horizons": {
            "obs_horizon": config.whole("n_obs_steps", MOST_STEPS),
            "action_horizon": config.whole("n_action_steps", MOST_STEPS),
            "pred_horizon": config.whole("horizon", MOST_STEPS),
        },
        "diffusion": diffusion,
        "sampler": sampler_section(
            config.text("noise_scheduler_type", "DDPM"), config, diffusion["num_train_timesteps"]
        ),
        "normalization": modes,
    }


_FITTED = {"obs": "STATE", "action": "ACTION"}


def _obs_spec(config: Settings) -> ObsSpec:
    """Returns the observations in the order in which LeRobot joins their features."""
    features = config.part("input_features")
    kinds = {key: features.part(key).text("type") for key in features.values}
    shapes = {key: features.part(key).wholes("shape", MOST_NUMBERS) for key in features.values}
    if kinds.get("observation.state") != "STATE":
        raise CheckpointError("config.json.input_features has no observation.state; expected one")
    made = {"observation.state": ObsField("low_dim", shapes["observation.state"])}
    for key in (key for key, kind in kinds.items() if kind == "VISUAL"):
        if len(shapes[key]) != 3 or max(shapes[key]) > MOST_PIXELS:
            raise CheckpointError(f"config.json: {key} has shape {shapes[key]}, expected (channels, height, width)")
        channels, height, width = shapes[key]
        made[key] = ObsField("rgb", (height, width, channels))
    for key in [key for key, kind in kinds.items() if kind == "ENV"][:1]:
        made[key] = ObsField("low_dim", shapes[key])
    return made


def _cameras(obs_spec: ObsSpec) -> list[str]:
    return [key for key, field in obs_spec.items() if field.is_picture]


def _encoder_section(
    config: Settings, obs_spec: ObsSpec, weights: Weights, normalization: Normalization
) -> dict[str, Any]:
    """Returns our section `encoder`: the pictures' ResNet, how they are cut, what their pixels are scaled by."""
    cameras = _cameras(obs_spec)
    if not cameras:
        return {}
    config.expect("vision_backbone", "resnet18", "only resnet18 can be read")
    resize, crop = config.size("resize_shape"), config.size("crop_shape")
    if resize is not None:
        ratio = config.number("crop_ratio", 1.0)
        crop = (int(resize[0] * ratio), int(resize[1] * ratio)) if ratio < 1 else None
    first, prefix = obs_spec[cameras[0]], _prefixes(config, cameras)[0]
    keypoints = weights.shape(f"{prefix}pool.nets.weight")[0]
    shared = {
        "name": "resnet18",
        "num_keypoints": keypoints,
        "feature_dim": weights.shape(f"{prefix}out.weight")[0],
        "norm": resnet_norm(weights, f"{prefix}backbone."),
        "relu": True,
        "share": not config.flag("use_separate_rgb_encoder_per_camera", False),
        **view_settings(first.shape[:2], resize, crop),  # type: ignore[arg-type]  # a picture has two sides
    }
    fields = {key: normalization.of(key).pixel_mean_and_std(obs_spec[key].shape[2], key) for key in cameras}
    return {"types": {"rgb": shared}, "fields": fields}


def _prefixes(config: Settings, cameras: list[str]) -> list[str]:
    """Returns what the names of each camera's weights begin with."""
    separate = config.flag("use_separate_rgb_encoder_per_camera", False)
    return [f"{_ENCODER}{place}." if separate else _ENCODER for place in range(len(cameras))]


def _take_encoders(config: Settings, obs_spec: ObsSpec, weights: Weights) -> dict[str, Tensor]:
    """Returns the weights of all cameras' encoders by our names."""
    made: dict[str, Tensor] = {}
    known: dict[str, Mapping[str, Tensor]] = {}
    cameras = _cameras(obs_spec)
    for key, prefix in zip(cameras, _prefixes(config, cameras), strict=True):
        if prefix not in known:
            weights.drop([f"{prefix}pool.pos_grid"])
            pool, linear = take_keypoints(weights, f"{prefix}pool.nets.", f"{prefix}out.")
            trunk = take_resnet(weights, f"{prefix}backbone.")
            known[prefix] = prefixed("0.", trunk) | prefixed("1.", pool) | prefixed("2.", linear)
        made |= prefixed(f"encoder.encoders.{list(obs_spec).index(key)}.network.", known[prefix])
    return made


def _take_unet(weights: Weights) -> dict[str, Tensor]:
    """Returns the U-Net's weights by our names, which are those of Chi et al. 2023."""
    prefix = "diffusion.unet."
    made = {}
    for name in weights.names(prefix):
        ours = name.removeprefix(prefix).replace(".conv1.block.", ".blocks.0.block.")
        ours = ours.replace(".conv2.block.", ".blocks.1.block.")
        words = ours.split(".")
        if words[0] in ("down_modules", "up_modules") and words[2] == "2":
            ours = ".".join([*words[:3], "conv", *words[3:]])
        made[ours] = weights.take(name)
    return made


def _normalizers(obs_spec: ObsSpec, normalization: Normalization, action: tuple[int, ...]) -> dict[str, Tensor]:
    """Returns the buffers of all normalisers by our names."""
    made: dict[str, Tensor] = {}
    for place, (key, field) in enumerate(obs_spec.items()):
        if not field.is_picture:
            made |= normalization.of(key).weights(f"obs_normalizers.{place}", field.shape, key)
    return made | normalization.of_action().weights("action_normalizer", action, "action")
