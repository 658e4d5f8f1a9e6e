"""Run by an interpreter with robomimic 0.2: what its encoder, as the reference repository makes it, says of pictures.

    $ROBOMIMIC_PYTHON robomimic_side.py FILE.npz

The encoder is made of seeded weights by robomimic's own factory, with GroupNorm in BatchNorm's place. The file holds
names and shapes of its state dict, and its features of pictures that `seeded` makes.
"""

import json
import sys
from collections import OrderedDict
from importlib.metadata import version

import numpy as np
import robomimic.utils.obs_utils as obs_utils
import seeded  # beside this file
import torch
from robomimic.config import config_factory
from robomimic.models.obs_nets import obs_encoder_factory
from torch import nn

SHAPES = {"agent_pos": [2], "image": [3, 41, 44]}  # pictures are cropped before, in evaluation


def with_group_norm(module: nn.Module) -> None:
    """Puts GroupNorm of 16 channels a group in the place of every BatchNorm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(child.num_features // 16, child.num_features))
        else:
            with_group_norm(child)


def main(path: str) -> None:
    """Writes what the encoder says."""
    torch.set_num_threads(1)
    config = config_factory("bc")
    with config.unlocked():
        config.observation.modalities.obs.low_dim, config.observation.modalities.obs.rgb = ["agent_pos"], ["image"]
        config.observation.encoder.rgb.obs_randomizer_class = None
    obs_utils.initialize_obs_utils_with_config(config)
    encoder = obs_encoder_factory(OrderedDict(SHAPES), encoder_kwargs=config.observation.encoder).eval()
    with_group_norm(encoder)
    own = encoder.state_dict()
    # a module that stands there twice, as `backbone` and in `nets`, has one set of weights
    once = {name: list(value.shape) for name, value in own.items() if ".backbone." not in name and ".pool." not in name}
    numbers = {name: torch.from_numpy(value) for name, value in seeded.weights(once, 11).items()}
    fixed = {name: value for name, value in own.items() if name.endswith(("temperature", "pos_x", "pos_y"))}
    encoder.load_state_dict({**numbers, **fixed}, strict=False)
    pictures = {"image": {"shape": SHAPES["image"], "type": "VISUAL"}}
    pictures["observation.state"] = {"shape": [2], "type": "STATE"}
    drawn = seeded.observations(pictures, 3, 1, 2)
    obs = {"image": torch.from_numpy(drawn["image"][0]) / 255 * 2 - 1}
    obs["agent_pos"] = torch.from_numpy(drawn["observation.state"][0])
    with torch.no_grad():
        features = encoder(obs).numpy()
    told = {"shapes": once, "versions": {name: version(name) for name in ("robomimic", "torch", "torchvision")}}
    np.savez(path, told=json.dumps(told), features=features)


if __name__ == "__main__":
    main(sys.argv[1])
