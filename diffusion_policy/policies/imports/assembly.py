"""Pictures, samplers and files that imports of all kinds have in common, and the policy that comes of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import CheckpointError, ConfigError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.imports.foreign_settings import Settings
from diffusion_policy.policies.imports.weights import UnetSizes
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.versions import installed_versions

_MOST_STEPS = 100_000  # of a schedule
_FINAL_GROUPS = 8  # of the last GroupNorm of the published U-Net, whatever `n_groups` says
_SCHEDULE = ("beta_schedule", "prediction_type", "variance_type")


def diffusion_section(scheduler: Settings) -> dict[str, Any]:
    """Returns our section `diffusion` of settings that have diffusers' names."""
    words = {name: scheduler.text(name) for name in _SCHEDULE if scheduler.has(name)}
    return {
        "num_train_timesteps": scheduler.whole("num_train_timesteps", _MOST_STEPS, 100),
        "beta_start": scheduler.number("beta_start", 1e-4),
        "beta_end": scheduler.number("beta_end", 0.02),
        "clip_sample": scheduler.flag("clip_sample", True),
        "clip_sample_range": scheduler.number("clip_sample_range", 1.0),
        **words,
    }


def sampler_section(kind: str, settings: Settings, num_train_timesteps: int) -> dict[str, Any]:
    """Returns our section `sampler` for diffusers' scheduler "DDPM" or "DDIM", with its own spacing."""
    name = kind.lower()
    if name not in ("ddpm", "ddim"):
        raise CheckpointError(f"{settings.what} samples by {kind}, expected DDPM or DDIM")
    steps = num_train_timesteps
    if settings.has("num_inference_steps"):
        steps = settings.whole("num_inference_steps", num_train_timesteps)
    return {"name": name, "num_inference_steps": steps, "timestep_spacing": "leading"}


def denoiser_section(sizes: UnetSizes, n_groups: int) -> dict[str, Any]:
    """Returns our section `denoiser` of a U-Net of these sizes."""
    last = {} if n_groups == _FINAL_GROUPS else {"final_n_groups": _FINAL_GROUPS}
    return {
        "name": "unet1d",
        "down_dims": list(sizes.down_dims),
        "kernel_size": sizes.kernel_size,
        "n_groups": n_groups,
        **last,
        "embed_dim": sizes.embed_dim,
        "cond_predict_scale": sizes.cond_predict_scale,
    }


def view_settings(
    frame: tuple[int, int], resize: tuple[int, int] | None, crop: tuple[int, int] | None
) -> dict[str, Any]:
    """Returns settings of `View` for pictures of a size, resized and cropped in the middle as torchvision does.

    torchvision rounds half pixels to the even one; where that is another place than ours, it is said.
    """
    made: dict[str, Any] = {} if resize is None else {"resize": list(resize)}
    if crop is None:
        return made
    sides = resize or frame
    room = [side - cut for side, cut in zip(sides, crop, strict=True)]
    corner = [round(free / 2) for free in room]
    at = {} if corner == [free // 2 for free in room] else {"crop_at": corner}
    return {**made, "crop": list(crop), **at}


def check_told(told: Mapping[str, object], found: Mapping[str, object], what: str) -> None:
    """Raises where the settings of a checkpoint say something else than its weights."""
    for name, value in told.items():
        if value != found[name]:
            raise CheckpointError(f"{what}: its settings say {name} {value}, but its weights have {found[name]}")


def imported_policy(
    sections: Mapping[str, Any],
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    weights: Mapping[str, Tensor],
    file: Path,
    kind: str,
) -> DiffusionPolicy:
    """Returns a policy with somebody else's weights, in evaluation mode.

    Args:
        sections: its configuration.
        obs_spec: its observations.
        action_spec: its actions.
        weights: by our names, all of them.
        file: that they come from, noted with its sha256.
        kind: of the file, noted.

    Raises:
        CheckpointError: settings and weights do not fit each other, or this version.
    """
    try:
        policy = DiffusionPolicy.from_sections(sections, obs_spec, action_spec)
        policy.load_state_dict(dict(weights))
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except RuntimeError as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(f"{file}: its weights do not fit its settings: {first}") from error
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    origin = {"kind": kind, "file": file.name, "sha256": digest}
    policy.info = CheckpointInfo(training={"imported": origin}, versions=installed_versions())
    return policy.eval()
