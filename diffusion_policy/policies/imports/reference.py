"""Checkpoints (.ckpt) of the reference repository of Chi et al. 2023 become policies of ours.

Such a file is a pickle of {cfg, state_dicts: {model, ema_model, optimizer}, pickles}; it is read without running
anything of it, see `pickled`. Read are the U-Net under a global condition: of vectors (DiffusionUnetLowdimPolicy), and
of pictures and vectors (DiffusionUnetHybridImagePolicy), whose encoder is robomimic's ResNet-18 with a spatial softmax.
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
from diffusion_policy.policies.imports.foreign_settings import MOST_NUMBERS, MOST_PIXELS, MOST_STEPS, Settings
from diffusion_policy.policies.imports.inert import Inert, plain
from diffusion_policy.policies.imports.torch_file import StoredTensor, TorchFile, open_torch_file
from diffusion_policy.policies.imports.weights import (
    Affine,
    Weights,
    prefixed,
    resnet_norm,
    take_keypoints,
    take_resnet,
    unet_sizes,
)

KIND = "a checkpoint of the reference repository"
_POLICIES = ("DiffusionUnetLowdimPolicy", "DiffusionUnetHybridImagePolicy")
_NOT_READ = "only networks under a global condition (obs_as_global_cond: true) can be read"


def read_reference(path: Path) -> DiffusionPolicy:
    """Returns the policy in a checkpoint, with its averaged weights (EMA) where it has been trained with them.

    It answers as the original does in evaluation, in the environment's units. Pictures are bytes 0-255, height x width
    x channels (the reference's are floats 0-1, channels first).

    Args:
        path: e.g. `checkpoints/latest.ckpt`.

    Raises:
        MissingFileError: no such file.
        CheckpointError: another kind of policy, damaged, or with settings that this version does not have.
    """
    with open_torch_file(path) as file:
        content = file.content
        if not isinstance(content, dict) or not {"cfg", "state_dicts"} <= set(content):
            if isinstance(content, dict) and {"obs_spec", "action_spec"} <= set(content):
                raise CheckpointError(f"{path} is a policy.pt already; use it as it is")
            raise CheckpointError(f"{path} is no checkpoint of the reference repository: it has no cfg and state_dicts")
        config = Settings(plain(content["cfg"], _unfolded, f"{path}: cfg"), "cfg")
        policy = config.part("policy")
        kind = policy.text("_target_", "").rpartition(".")[2]
        if kind not in _POLICIES:
            raise CheckpointError(f"{path} holds a {kind or 'policy without a name'}, known: {', '.join(_POLICIES)}")
        ema = config.has("training") and config.part("training").flag("use_ema", False)
        weights = Weights(_tensors(file, "ema_model" if ema else "model"), str(path))
    policy.expect("obs_as_global_cond", True, _NOT_READ)
    policy.expect("obs_as_local_cond", False, _NOT_READ)
    policy.expect("pred_action_steps_only", False, "chunks without the steps before now are not known here")
    lowdim = kind == _POLICIES[0]
    if lowdim:
        policy.expect("oa_step_convention", True, "then the action of now is not the one of the last observation")
    weights.drop(name for name in weights.names() if name.endswith("_dummy_variable") or ".input_stats." in name)
    return _read_lowdim(policy, weights, path) if lowdim else _read_hybrid(policy, weights, path)


def _read_lowdim(policy: Settings, weights: Weights, path: Path) -> DiffusionPolicy:
    """Returns a policy whose observation is one vector, "obs"."""
    obs_spec = {"obs": ObsField("low_dim", (policy.whole("obs_dim", MOST_NUMBERS),))}
    return _assembled(
        policy, policy.part("model"), obs_spec, policy.whole("action_dim", MOST_NUMBERS), weights, {}, path
    )


def _read_hybrid(policy: Settings, weights: Weights, path: Path) -> DiffusionPolicy:
    """Returns a policy of pictures and vectors, in the order in which robomimic joins their features."""
    meta = policy.part("shape_meta")
    obs_spec = {key: _field(meta.part("obs").part(key)) for key in meta.part("obs").values}
    action = meta.part("action").wholes("shape", MOST_NUMBERS)
    if len(action) != 1:
        raise CheckpointError(f"{meta.what}.action.shape is {action}, expected one number")
    crop = policy.size("crop_shape")
    fields: dict[str, Any] = {}
    made: dict[str, Tensor] = {}
    for place, (key, spec) in enumerate(obs_spec.items()):
        if spec.is_picture:
            fields[key], encoder = _take_encoder(weights, key, spec, crop)
            made |= prefixed(f"encoder.encoders.{place}.network.", encoder)
    sections = {"encoder": {"types": {"rgb": {"name": "resnet18"}}, "fields": fields}} if fields else {}
    return _assembled(policy, policy, obs_spec, action[0], weights, sections, path, made)


def _assembled(
    policy: Settings,
    network: Settings,
    obs_spec: ObsSpec,
    action_dim: int,
    weights: Weights,
    sections: Mapping[str, Any],
    path: Path,
    made: Mapping[str, Tensor] | None = None,
) -> DiffusionPolicy:
    """Returns the policy of what has been read; `network` holds the settings of the U-Net."""
    unet = {name.removeprefix("model."): weights.take(name) for name in weights.names("model.")}
    sizes = unet_sizes(unet, str(path))
    told: dict[str, object] = {
        "action_dim": action_dim,
        "down_dims": network.wholes("down_dims", 2**16, [256, 512, 1024]),
    }
    told["embed_dim"] = network.whole("diffusion_step_embed_dim", 2**16, 256)
    check_told(told, vars(sizes), str(path))
    scheduler = policy.part("noise_scheduler")
    diffusion = diffusion_section(scheduler)
    scheduler_name = scheduler.text("_target_").rpartition(".")[2].removesuffix("Scheduler")
    all_weights = prefixed("denoiser.", unet) | dict(made or {}) | _normalizers(weights, obs_spec, action_dim)
    weights.require_empty()
    all_sections = {
        "policy": {"name": "diffusion"},
        "horizons": {
            "obs_horizon": policy.whole("n_obs_steps", MOST_STEPS),
            "action_horizon": policy.whole("n_action_steps", MOST_STEPS),
            "pred_horizon": policy.whole("horizon", MOST_STEPS),
        },
        "denoiser": denoiser_section(sizes, network.whole("n_groups", 2**16, 8)),
        "diffusion": diffusion,
        "sampler": sampler_section(scheduler_name, policy, diffusion["num_train_timesteps"]),
        **sections,
    }
    return imported_policy(all_sections, obs_spec, ActionSpec(shape=(action_dim,)), all_weights, path, KIND)


def _unfolded(inert: Inert) -> object:
    """Returns what stands in an object of OmegaConf: the entries of a mapping or list, or a value."""
    state = inert.state
    if inert.kind.startswith("omegaconf.") and isinstance(state, dict):
        for name in ("_content", "_val"):
            if name in state:
                return state[name]
    raise CheckpointError(f"its configuration holds a {inert.kind or 'call'}, expected plain values")


def _tensors(file: TorchFile, name: str) -> dict[str, Tensor]:
    """Returns the tensors of one of the states in a file."""
    states = file.content["state_dicts"]
    state = states.get(name) if isinstance(states, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"its state_dicts have no {name}; expected the weights of a policy")
    # robomimic's VisualCore holds its backbone and pool twice, under names of their own and in a Sequential
    once = {key: value for key, value in state.items() if ".backbone." not in key and ".pool." not in key}
    return {key: file.load(value) for key, value in once.items() if isinstance(value, StoredTensor)}


def _field(meta: Settings) -> ObsField:
    shape = meta.wholes("shape", MOST_NUMBERS)
    kind = meta.text("type", "low_dim")
    if kind == "low_dim":
        return ObsField("low_dim", shape)
    if kind != "rgb" or len(shape) != 3 or max(shape) > MOST_PIXELS:
        raise CheckpointError(f"{meta.what} is of type {kind} {shape}; only low_dim, and rgb (channels, height, width)")
    return ObsField("rgb", (*shape[1:], shape[0]))


def _take_encoder(
    weights: Weights, key: str, spec: ObsField, crop: tuple[int, int] | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the settings and weights of one camera's encoder."""
    stem = f"obs_encoder.obs_nets.{key}.nets."
    keypoints = weights.shape(f"{stem}1.nets.weight")[0]
    features = weights.shape(f"{stem}3.weight")[0]
    norm = resnet_norm(weights, f"{stem}0.nets.")
    temperature = float(weights.take(f"{stem}1.temperature"))
    weights.drop([f"{stem}1.pos_x", f"{stem}1.pos_y"])
    pool, linear = take_keypoints(weights, f"{stem}1.nets.", f"{stem}3.", temperature)
    trunk = take_resnet(weights, f"{stem}0.nets.")
    pixels = _affine(weights, key).pixel_mean_and_std(spec.shape[2], key)
    settings = {"num_keypoints": keypoints, "feature_dim": features, "norm": norm, "relu": True, **pixels}
    made = prefixed("0.", trunk) | prefixed("1.", pool) | prefixed("2.", linear)
    return {**settings, **view_settings((spec.shape[0], spec.shape[1]), None, crop)}, made


def _affine(weights: Weights, key: str) -> Affine:
    stem = f"normalizer.params_dict.{key}."
    return Affine(weights.take(f"{stem}scale"), weights.take(f"{stem}offset"))


def _normalizers(weights: Weights, obs_spec: ObsSpec, action_dim: int) -> dict[str, Tensor]:
    made = _affine(weights, "action").weights("action_normalizer", (action_dim,), "action")
    for place, (key, spec) in enumerate(obs_spec.items()):
        if not spec.is_picture:
            made |= _affine(weights, key).weights(f"obs_normalizers.{place}", spec.shape, key)
    return made
