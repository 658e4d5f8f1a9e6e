"""Checkpoints of the reference repository: the chunk of its published formulas from the same noise, to 1e-5.

The repository itself cannot be installed beside today's torch. The expectation is `reference_network`, written from
the published architecture, under diffusers' own scheduler; the encoder of pictures is also compared with the real
robomimic in a slow test.
"""

import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from omegaconf import OmegaConf
from torch import Tensor, nn

from diffusion_policy.errors import CheckpointError, MissingFileError
from diffusion_policy.policies.imports.reference import read_reference
from tests.policies.imports import seeded
from tests.policies.imports.reference_network import resnet_shapes, unet, unet_shapes, visual_core

ROWS, TP, DA = 2, 8, 2
DIMS = [16, 32]
NOISE = {"_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler", "num_train_timesteps": 10}
NOISE |= {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "squaredcos_cap_v2", "variance_type": "fixed_small"}
NOISE |= {"clip_sample": True, "prediction_type": "epsilon"}
COMMON = {"horizon": TP, "n_action_steps": 3, "n_obs_steps": 2, "num_inference_steps": 10, "obs_as_global_cond": True}
HOME = "diffusion_policy.policy.diffusion_unet"
LOWDIM = {
    "_target_": f"{HOME}_lowdim_policy.DiffusionUnetLowdimPolicy",
    "model": {"down_dims": DIMS, "kernel_size": 5, "n_groups": 8, "diffusion_step_embed_dim": 8},
    "noise_scheduler": NOISE,
    **COMMON,
    "obs_dim": 5,
    "action_dim": DA,
    "obs_as_local_cond": False,
    "pred_action_steps_only": False,
    "oa_step_convention": True,
}
OBS = {
    "agent_pos": {"shape": [2]},
    "image": {"shape": [3, 48, 50], "type": "rgb"},
    "force": {"shape": [1], "type": "low_dim"},
}
HYBRID = {
    "_target_": f"{HOME}_hybrid_image_policy.DiffusionUnetHybridImagePolicy",
    "shape_meta": {"obs": OBS, "action": {"shape": [DA]}},
    "noise_scheduler": NOISE,
    **COMMON,
    "crop_shape": [41, 44],
    "down_dims": DIMS,
    "kernel_size": 5,
    "n_groups": 8,
    "diffusion_step_embed_dim": 8,
    "obs_encoder_group_norm": True,
    "eval_fixed_crop": True,
}
CORE = "obs_encoder.obs_nets.image.nets."


def state(cond: int, normalizers: dict[str, int], picture: str = "", scale: bool = True) -> dict[str, Tensor]:
    """Returns a state dict with the reference's names; `picture` is the norm of a camera's ResNet, or "" for none."""
    shapes = {"_dummy_variable": [0], "mask_generator._dummy_variable": [0]}
    shapes |= unet_shapes("model.", DA, cond, 8, DIMS, 5, scale)
    if picture:
        shapes |= resnet_shapes(f"{CORE}0.nets.", picture)
        shapes |= {f"{CORE}1.nets.weight": [4, 512, 1, 1], f"{CORE}1.nets.bias": [4]}
        shapes |= {f"{CORE}3.weight": [6, 8], f"{CORE}3.bias": [6]}
    made = {name: torch.from_numpy(value) for name, value in seeded.weights(shapes, 11).items()}
    if picture:
        made |= {f"{CORE}1.temperature": torch.tensor([1.5])}
        made |= {f"{CORE}1.pos_{axis}": torch.zeros(1, 4) for axis in "xy"}
        twice = {name.replace("nets.0", "backbone", 1): value for name, value in made.items() if f"{CORE}0." in name}
        made |= twice | {f"{CORE[:-5]}pool.temperature": torch.tensor([1.5])}
    for place, (key, size) in enumerate(normalizers.items()):
        stem = f"normalizer.params_dict.{key}."
        rates = torch.linspace(0.5, 1.5, size) if key != "image" else torch.tensor([2.0])
        made |= {
            f"{stem}scale": rates,
            f"{stem}offset": rates / (3 + place) if key != "image" else torch.tensor([-1.0]),
        }
        made |= {f"{stem}input_stats.{name}": torch.zeros(size) for name in ("min", "max", "mean", "std")}
    return made


def saved(path: Path, policy: dict[str, Any], own: dict[str, Tensor], **training: Any) -> Path:
    """Writes a checkpoint as the reference's workspace does: OmegaConf's object, optimiser, pickles in a pickle."""
    other = {name: torch.zeros_like(value) for name, value in own.items()}
    layer = nn.Linear(2, 2)
    states = {"model": OrderedDict(other), "ema_model": OrderedDict(own)}
    if training.get("use_ema") is False:
        states = {"model": OrderedDict(own)}
    states["optimizer"] = torch.optim.AdamW(layer.parameters()).state_dict()
    config = OmegaConf.create({"name": "x", "policy": policy, "training": {"use_ema": True, **training}})
    torch.save({"cfg": config, "state_dicts": states, "pickles": {"_output_dir": b"\x80\x04cos\nsystem\n."}}, path)
    return path


def sampled(kind: Any, settings: dict[str, Any], steps: int, noise: Tensor, denoise: Any) -> Tensor:
    """Returns what diffusers' scheduler makes of noise (1 + N, B, Tp, Da)."""
    scheduler = kind(**{name: value for name, value in settings.items() if name != "_target_"})
    scheduler.set_timesteps(steps)
    x = noise[0]
    with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", side_effect=list(noise[1:])):
        for t in scheduler.timesteps:
            x = scheduler.step(denoise(x, t.expand(ROWS)), t, x).prev_sample
    return x


def difference(path: Path, obs: dict[str, Tensor], noise: Tensor, expected: Tensor) -> float:
    policy = read_reference(path)
    rows = noise.transpose(0, 1)[:, : policy.noise_shape[0]] if len(policy.noise_shape) == 3 else noise[0]
    with torch.inference_mode():
        found = policy.sample(policy.condition(obs), rows)
    assert expected.abs().mean() > 0.1
    chunk = policy.predict(obs, rows).prediction
    torch.testing.assert_close(policy.action_normalizer.normalize(chunk), found, atol=1e-5, rtol=1e-5)
    return float((found - expected).abs().max())


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_reference_policy_of_vectors_answers_as_its_formulas(ema: bool, scale: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = state(10, {"obs": 5, "action": DA}, scale=scale)
    path = saved(tmp_path / "a.ckpt", LOWDIM, own, use_ema=ema)
    obs, noise = torch.randn(ROWS, 2, 5), torch.randn(11, ROWS, TP, DA)
    stem = "normalizer.params_dict.obs."
    cond = (obs * own[f"{stem}scale"] + own[f"{stem}offset"]).flatten(1)
    expected = sampled(DDPMScheduler, NOISE, 10, noise, lambda x, t: unet(own, "model.", x, t, cond, 8, scale))
    assert difference(path, {"obs": obs}, noise, expected) <= 1e-5


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_reference_policy_of_pictures_answers_as_its_formulas(norm: str, tmp_path: Path) -> None:
    """With the real robot's sampler, DDIM; the crop lies between two pixels, the fields in an odd order."""
    torch.manual_seed(0)
    own = state(2 * (2 + 6 + 1), {"agent_pos": 2, "image": 1, "force": 1, "action": DA}, norm)
    scheduler = {**NOISE, "_target_": "diffusers.schedulers.scheduling_ddim.DDIMScheduler"}
    scheduler |= {"num_train_timesteps": 20, "set_alpha_to_one": True, "steps_offset": 0}
    del scheduler["variance_type"]
    settings = {**HYBRID, "noise_scheduler": scheduler, "num_inference_steps": 5}
    path = saved(tmp_path / "a.ckpt", settings, own)
    pictures = {"image": {"shape": [3, 48, 50], "type": "VISUAL"}, "observation.state": {"shape": [2], "type": "STATE"}}
    image = torch.from_numpy(seeded.observations(pictures, ROWS, 2, 1)["image"]).transpose(0, 1)  # (B, To, C, H, W)
    obs = {"agent_pos": torch.randn(ROWS, 2, 2), "force": torch.randn(ROWS, 2, 1)}
    known = {
        key: value * own[f"normalizer.params_dict.{key}.scale"] + own[f"normalizer.params_dict.{key}.offset"]
        for key, value in {**obs, "image": image / 255}.items()
    }
    cut = known["image"].flatten(0, 1)[:, :, 4:45, 3:47]  # 7 and 6 pixels are free
    features = visual_core(own, CORE, cut).unflatten(0, (ROWS, 2))
    cond = torch.cat([known["agent_pos"], features, known["force"]], -1).flatten(1)
    noise = torch.randn(1, ROWS, TP, DA)
    expected = sampled(DDIMScheduler, scheduler, 5, noise, lambda x, t: unet(own, "model.", x, t, cond, 8, True))
    seen = {**obs, "image": image.permute(0, 1, 3, 4, 2).contiguous()}
    assert difference(path, seen, noise, expected) <= 1e-5


def changed(**changes: Any) -> dict[str, Any]:
    return {**LOWDIM, **changes}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (changed(_target_="x.DiffusionTransformerLowdimPolicy"), "a DiffusionTransformerLowdimPolicy, known: "),
        (changed(obs_as_global_cond=False), "only networks under a global condition"),
        (changed(obs_as_local_cond=True), "only networks under a global condition"),
        (changed(pred_action_steps_only=True), "chunks without the steps before now"),
        (changed(oa_step_convention=False), "the action of now is not"),
        (changed(obs_dim=7), "normalisation of obs has 5 numbers, expected 7"),
        (changed(obs_dim="${x}"), "obs_dim must be a whole number"),
        (changed(model={"down_dims": [10**9, 16], "diffusion_step_embed_dim": 8}), "must be a few whole numbers"),
        (changed(model={"down_dims": [16, 64], "diffusion_step_embed_dim": 8}), "but its weights have"),
        (changed(noise_scheduler={**NOISE, "_target_": "diffusers.PNDMScheduler"}), "samples by PNDM"),
        (changed(noise_scheduler={**NOISE, "beta_schedule": "mystery"}), "mystery"),
        (changed(horizon=None), "horizon must be a whole number"),
    ],
)
def test_reference_policy_that_cannot_be_read_is_one_line(policy: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", policy, state(10, {"obs": 5, "action": DA}))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_reference(path)
    assert "\n" not in str(caught.value)


def test_reference_checkpoint_of_something_else_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="it has no cfg and state_dicts"):
        read_reference(path)
    torch.save({"cfg": Path("x"), "state_dicts": {}}, path)
    with pytest.raises(CheckpointError, match="its configuration holds a "):
        read_reference(path)
    saved(path, LOWDIM, state(10, {"obs": 5, "action": DA}) | {"mystery": torch.ones(3)})
    with pytest.raises(CheckpointError, match="1 weights that this version does not know"):
        read_reference(path)
    own = state(10, {"obs": 5, "action": DA})
    del own["normalizer.params_dict.obs.scale"]
    with pytest.raises(CheckpointError, match=r"lacks the weights normalizer.params_dict.obs.scale"):
        read_reference(saved(path, LOWDIM, own))
    with pytest.raises(MissingFileError):
        read_reference(tmp_path / "b.ckpt")


class _Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


def test_reference_checkpoint_with_code_is_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "a.ckpt", LOWDIM, state(10, {"obs": 5, "action": DA}))
    content = torch.load(path, weights_only=False)
    torch.save({**content, "extra": _Evil(), "pickles": {"x": _Evil()}}, path)
    before = set(sys.modules)
    obs = {"obs": np.zeros((1, 2, 5), np.float32)}
    assert read_reference(path).predict(obs).actions.shape == (1, 3, DA)
    assert set(sys.modules) == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.slow
def test_encoder_of_pictures_says_what_the_real_robomimic_says(tmp_path: Path) -> None:
    python = os.environ.get("ROBOMIMIC_PYTHON")
    if not python or not Path(python).exists():
        pytest.skip("needs ROBOMIMIC_PYTHON, an interpreter with robomimic 0.2 (CONTRIBUTING.md)")
    script = Path(__file__).with_name("robomimic_side.py")
    done = subprocess.run([python, script, tmp_path / "a.npz"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "a.npz") as stored:
        told, features = json.loads(str(stored["told"])), torch.from_numpy(stored["features"])
    shapes = {name: shape for name, shape in told["shapes"].items() if not name.endswith(("ature", "pos_x", "pos_y"))}
    own = state(66, {"agent_pos": 2, "image": 1, "action": DA})
    numbers = seeded.weights(told["shapes"], 11)
    own |= {f"obs_encoder.{name}": torch.from_numpy(numbers[name]) for name in shapes}
    own |= {f"{CORE}1.temperature": torch.ones(1), f"{CORE}1.pos_x": torch.zeros(1), f"{CORE}1.pos_y": torch.zeros(1)}
    own |= {
        "normalizer.params_dict.agent_pos.scale": torch.ones(2),
        "normalizer.params_dict.agent_pos.offset": torch.zeros(2),
    }
    meta = {
        "obs": {"agent_pos": {"shape": [2]}, "image": {"shape": [3, 41, 44], "type": "rgb"}},
        "action": {"shape": [DA]},
    }
    settings = {**HYBRID, "shape_meta": meta, "crop_shape": None, "n_obs_steps": 1}
    policy = read_reference(saved(tmp_path / "a.ckpt", settings, own))
    pictures = {"image": {"shape": [3, 41, 44], "type": "VISUAL"}, "observation.state": {"shape": [2], "type": "STATE"}}
    drawn = seeded.observations(pictures, 3, 1, 2)
    image = torch.from_numpy(np.moveaxis(drawn["image"], 2, -1).swapaxes(0, 1).copy())  # (B, To, H, W, C)
    obs = {"agent_pos": torch.from_numpy(drawn["observation.state"].swapaxes(0, 1).copy()), "image": image}
    with torch.inference_mode():
        difference = (policy.condition(obs) - features).abs().max()
    print(f"{difference:.1e}; {told['versions']} here torch {torch.__version__}")
    assert features.abs().mean() > 0.01
    assert difference <= 1e-5
