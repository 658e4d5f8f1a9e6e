"""Run by LeRobot's own interpreter: writes its policies as it saves them, and what it answers to given noise.

    $LEROBOT_PYTHON lerobot_side.py FOLDER [--small]

Each case becomes a folder as `save_pretrained` writes it, and `answers.npz`. With `--small` the weights, which
`seeded` makes again, are left out: so the fixtures of the default tests were made.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import seeded  # beside this file
import torch
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
from lerobot.policies.factory import make_pre_post_processors

ROWS, STEPS = 2, 5
STATE = {"observation.state": {"type": "STATE", "shape": [3]}}
POINTS = {"observation.environment_state": {"type": "ENV", "shape": [5]}}
CAMERAS = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 48, 52]} for name in ("front", "wrist")}
SMALL = {"n_obs_steps": 2, "n_action_steps": 3, "horizon": 8, "diffusion_step_embed_dim": 8, "device": "cpu"}
SMALL |= {"num_train_timesteps": 10, "push_to_hub": False}
CASES: dict[str, dict[str, Any]] = {
    "state": {"features": STATE | POINTS, "down_dims": [16, 32]},
    "state_ddim": {
        "features": POINTS | STATE,  # not the order in which LeRobot joins them
        "down_dims": [16, 24, 32],
        "kernel_size": 3,
        "n_groups": 4,
        "use_film_scale_modulation": False,
        "noise_scheduler_type": "DDIM",
        "num_train_timesteps": 20,
        "num_inference_steps": 4,
        "prediction_type": "sample",
        "clip_sample": False,
        "normalization_mapping": {"STATE": "MEAN_STD", "ENV": "MIN_MAX", "ACTION": "MEAN_STD"},
    },
    "cameras": {  # one encoder for both; a crop between two pixels
        "features": STATE | CAMERAS,
        "down_dims": [16, 32],
        "crop_shape": [41, 45],
        "spatial_softmax_num_keypoints": 5,
    },
    "separate_cameras": {  # BatchNorm, as with published weights; resized
        "features": CAMERAS | STATE | POINTS,
        "down_dims": [16],
        "use_separate_rgb_encoder_per_camera": True,
        "use_group_norm": False,
        "resize_shape": [44, 40],
        "crop_ratio": 0.9,
        "spatial_softmax_num_keypoints": 4,
        "normalization_mapping": {"VISUAL": "MIN_MAX", "STATE": "QUANTILES", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"},
    },
}


def statistics(features: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what a data set would say; the state's second number is constant, actions reach far from 0."""
    rng = np.random.default_rng(1)
    made = {}
    for key, feature in {**features, "action": {"type": "ACTION", "shape": [2]}}.items():
        shape = [3, 1, 1] if feature["type"] == "VISUAL" else feature["shape"]
        low, width = rng.random(shape, np.float32) - 0.9, rng.random(shape, np.float32) + 0.5
        if feature["type"] == "VISUAL":  # deviations of a quarter, as of photographs
            low, width = low / 10 + 0.09, width / 5 + 0.6
        if feature["type"] == "ACTION":
            low, width = 100 * low, 100 * width
        if key == "observation.state":
            low[1], width[1] = seeded.CONSTANT, 0
        # QUANTILES of LeRobot divides by what is left of a constant
        made[key] = {"min": low, "max": low + width, "mean": low + width / 2, "std": width / 3 + (width == 0)}
        made[key] |= {"q01": low + 0.01, "q99": low + width + (width == 0)}
    return made


def configuration(case: dict[str, Any]) -> DiffusionConfig:
    """Returns a case's configuration."""
    settings = {**SMALL, **{name: value for name, value in case.items() if name != "features"}}
    if "normalization_mapping" in settings:
        modes = settings["normalization_mapping"]
        settings["normalization_mapping"] = {kind: NormalizationMode(mode) for kind, mode in modes.items()}
    for name in ("down_dims", "crop_shape", "resize_shape"):
        if name in settings:
            settings[name] = tuple(settings[name])
    inputs = {key: PolicyFeature(FeatureType(f["type"]), tuple(f["shape"])) for key, f in case["features"].items()}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    return DiffusionConfig(input_features=inputs, output_features=outputs, **settings)


def fill(policy: DiffusionPolicy) -> dict[str, list[int]]:
    """Sets all weights; returns their shapes."""
    own = policy.state_dict()
    shapes = {name: list(value.shape) for name, value in own.items()}
    numbers = {name: torch.from_numpy(value) for name, value in seeded.weights(shapes, 3).items()}
    kept = {name: value for name, value in own.items() if name.endswith("pos_grid")}
    policy.load_state_dict({**numbers, **kept})
    return shapes


def observed(features: dict[str, Any]) -> list[dict[str, torch.Tensor]]:
    """Returns what the policy sees at each step: pictures as floats 0-1, channels first."""
    drawn = seeded.observations(features, ROWS, STEPS, 5)
    tensors = {key: torch.from_numpy(value) for key, value in drawn.items()}
    floats = {key: value / 255 if value.dtype == torch.uint8 else value for key, value in tensors.items()}
    return [{key: value[step] for key, value in floats.items()} for step in range(STEPS)]


def answers(folder: Path, features: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns what the saved policy does in an episode of a few steps, loaded as LeRobot loads it.

    `noise` (calls, 1 + N, B, Tp, Da): where each prediction begins, and what its steps add; `predictions`
    (calls, B, Tp, Da), normalised; `actions` (STEPS, B, Da), behind the postprocessor.
    """
    policy = DiffusionPolicy.from_pretrained(folder)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    rng = np.random.default_rng(7)
    sample, noise, predictions, actions = policy.diffusion.conditional_sample, [], [], []
    steps = policy.config.num_inference_steps or policy.config.num_train_timesteps

    def recorded(*args: Any, **words: Any) -> torch.Tensor:
        predictions.append(sample(*args, **words))
        return predictions[-1]

    policy.diffusion.conditional_sample = recorded
    policy.reset()
    for observation in observed(features):
        drawn = torch.from_numpy(rng.standard_normal((1 + steps, ROWS, policy.config.horizon, 2), np.float32))
        added = iter(drawn[1:])
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, added=added, **__: next(added)):
            count = len(predictions)
            actions.append(after(policy.select_action(before(observation), noise=drawn[0])))
        if len(predictions) > count:
            noise.append(drawn)
    return {
        name: torch.stack(v).numpy()
        for name, v in (("noise", noise), ("predictions", predictions), ("actions", actions))
    }


def main(folder: Path, small: bool) -> None:
    """Writes all cases."""
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("lerobot", "torch", "torchvision", "diffusers")}
    for name, case in CASES.items():
        policy = DiffusionPolicy(configuration(case)).eval()
        shapes = fill(policy)
        policy.save_pretrained(folder / name)
        for processor in make_diffusion_pre_post_processors(policy.config, statistics(case["features"])):
            processor.save_pretrained(folder / name)
        told = {"features": case["features"], "shapes": shapes, "versions": versions}
        found = answers(folder / name, case["features"])
        np.savez_compressed(folder / name / "answers.npz", told=json.dumps(told), **found)
        if small:
            (folder / name / "model.safetensors").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--small" in sys.argv)
