"""LeRobot's policies answer here as there: from the same noise the same chunk, to 1e-5 in normalised actions.

The fixtures hold what the real LeRobot 0.4.4 answered; the slow test asks it again.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy import RecedingHorizonController
from diffusion_policy.errors import CheckpointError, MissingFileError
from diffusion_policy.policies.imports.lerobot import read_lerobot
from diffusion_policy.policies.imports.safetensors_file import read_safetensors
from tests.policies.imports.lerobot_cases import Case, write_safetensors, write_weights

FIXTURES = Path(__file__).parents[2] / "fixtures" / "lerobot"
NAMES = ("state", "state_ddim", "cameras", "separate_cameras")
TOLERANCE = 1e-5  # in normalised actions
STORED = {"cameras": 3e-5}  # of answers from another processor: float32 of a ResNet's maps is exact to 1e-5 only


def stored(name: str, folder: Path) -> Case:
    """Returns a copy of a fixture, with its weights."""
    shutil.copytree(FIXTURES / name, folder / name)
    case = Case.read(folder / name)
    write_weights(case)
    return case


@pytest.mark.parametrize("name", NAMES)
def test_lerobot_policy_answers_as_the_original(name: str, tmp_path: Path) -> None:
    case = stored(name, tmp_path)
    policy = read_lerobot(case.folder)
    tolerance = STORED.get(name, TOLERANCE)
    assert case.largest_difference(policy) <= tolerance
    assert np.abs(case.predictions).mean() > 0.1  # something to differ in
    for call in range(len(case.predictions)):  # in units of the robot, from raw observations
        chunk = policy.predict(case.window(policy, call), case.row_noise(policy, call)).actions
        begin = call * policy.horizons.action_horizon
        expected = case.actions[begin : begin + chunk.shape[1]].swapaxes(0, 1)
        scale = float(policy.action_normalizer.scale.min())
        np.testing.assert_allclose(chunk[:, : expected.shape[1]], expected, rtol=1e-6, atol=tolerance / scale)


def test_lerobot_policy_becomes_a_policy_file_that_acts(tmp_path: Path) -> None:
    case = stored("state", tmp_path)
    policy = read_lerobot(case.folder)
    policy.save(tmp_path / "policy.pt")
    controller = RecedingHorizonController.load(tmp_path / "policy.pt", seeds=[1, 2])
    seen = case.observations()
    assert controller.act({key: value[0] for key, value in seen.items()}).shape == (2, 2)
    origin = policy.info.training["imported"]
    assert origin["kind"] == "LeRobot's DiffusionPolicy"
    assert len(origin["sha256"]) == 64


def test_lerobot_statistics_among_the_weights_do_the_same(tmp_path: Path) -> None:
    """LeRobot before 0.4 kept them there; its formulas differ by 1e-8."""
    case = stored("cameras", tmp_path)
    weights = {name: value.numpy() for name, value in read_safetensors(case.folder / "model.safetensors").items()}
    for path in case.folder.glob("policy_preprocessor*.safetensors"):
        for name, value in read_safetensors(path).items():
            key, _, statistic = name.rpartition(".")
            homes = ["normalize_targets", "unnormalize_outputs"] if key == "action" else ["normalize_inputs"]
            if statistic in ("min", "max", "mean", "std"):
                for home in homes:
                    weights[f"{home}.buffer_{key.replace('.', '_')}.{statistic}"] = value.numpy()
    for path in case.folder.glob("policy_p*processor*"):
        path.unlink()
    write_safetensors(case.folder / "model.safetensors", weights)
    assert case.largest_difference(read_lerobot(case.folder)) <= STORED["cameras"]


def test_lerobot_number_that_is_constant_in_the_data_does_not_flood_the_network(tmp_path: Path) -> None:
    """There 2e8 times its deviation enters the network; here the deviation."""
    case = stored("state", tmp_path)
    policy = read_lerobot(case.folder)
    window = case.window(policy, 0)
    before = policy.normalized({key: torch.from_numpy(value) for key, value in window.items()})
    window["observation.state"][..., 1] += 0.01
    after = policy.normalized({key: torch.from_numpy(value) for key, value in window.items()})
    moved = (after["observation.state"] - before["observation.state"]).abs().amax((0, 1))
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.01, 0.0]))
    torch.testing.assert_close(before["observation.state"][..., 1], torch.full((2, 2), -1.0))


def test_lerobot_crop_lies_where_torchvision_puts_it(tmp_path: Path) -> None:
    """Seven pixels are free: torchvision begins at the fourth, our own crops at the third."""
    encoder = read_lerobot(stored("cameras", tmp_path).folder).config.encoder
    assert tuple(encoder.types["rgb"]["crop_at"]) == (4, 4)


def edited(name: str, **changes: Any) -> Any:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return change


def step_changed(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "policy_preprocessor.json"
        content = json.loads(path.read_text())
        content["steps"][-1].update(changes)
        path.write_text(json.dumps(content))

    return change


def weights_changed(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        weights = {name: value.numpy() for name, value in read_safetensors(folder / "model.safetensors").items()}
        kept = {name: value for name, value in {**weights, **changes}.items() if value is not None}
        write_safetensors(folder / "model.safetensors", kept)

    return change


LINEAR = "diffusion.unet.diffusion_step_encoder.3.bias"
FAULTS = {
    "another policy": (edited("config.json", type="act"), "of type 'act', not 'diffusion'"),
    "too old": (edited("config.json", input_features=None), "has no input_features"),
    "no state": (edited("config.json", input_features={}), "input_features has no observation.state"),
    "another backbone": (edited("config.json", noise_scheduler_type="PNDM"), "samples by PNDM, expected DDPM or DDIM"),
    "steps that are none": (edited("config.json", num_inference_steps=0), "must be a whole number in 1..10"),
    "a huge schedule": (edited("config.json", num_train_timesteps=10**12), r"a whole number in 1\.\.100000"),
    "a huge network": (edited("config.json", down_dims=[16, 32000]), "its weights have"),
    "a word for a number": (edited("config.json", horizon="16"), "horizon must be a whole number"),
    "a horizon that does not fit": (edited("config.json", horizon=7), "pred_horizon must be a multiple of 2"),
    "weights lost": (weights_changed(**{LINEAR: None}), "weights do not fit its settings.*Missing key"),
    "weights cut": (weights_changed(**{LINEAR: np.ones(3, np.float32)}), "weights do not fit its settings"),
    "weights of something else": (weights_changed(mystery=np.ones(3, np.float32)), "1 weights that this .* mystery"),
    "no json": (lambda folder: (folder / "config.json").write_text("{oops"), "config.json is no JSON"),
    "cut short": (lambda folder: (folder / "model.safetensors").write_bytes(b"123"), "cut short"),
    "a file elsewhere": (
        step_changed(state_file="../../secret.safetensors"),
        "expected one in its own folder; refused",
    ),
    "a step that is not known": (step_changed(registry_name="delta_actions"), "has the step 'delta_actions'"),
    "some observations only": (
        step_changed(config={"norm_map": {}, "normalize_observation_keys": ["a"]}),
        "normalises some observations only",
    ),
    "an unknown mode": (step_changed(config={"norm_map": {"STATE": "RANK"}}), "normalised by RANK, known: MIN_MAX"),
    "statistics lost": (
        lambda folder: [path.unlink() for path in folder.glob("policy_p*.json")],
        "neither policy_preprocessor.json nor statistics",
    ),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_lerobot_folder_that_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    case = stored("state", tmp_path)
    change, message = FAULTS[name]
    change(case.folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_lerobot(case.folder)
    assert "\n" not in str(caught.value)


def test_lerobot_actions_that_clipping_would_cut_are_refused(tmp_path: Path) -> None:
    """Mean and deviation with clip_sample: every third action of the data lies outside what it can answer."""
    case = stored("state_ddim", tmp_path)
    edited("config.json", clip_sample=True)(case.folder)
    with pytest.raises(CheckpointError, match="clip_sample=true needs actions inside"):
        read_lerobot(case.folder)


def test_lerobot_folder_without_weights_or_statistics_says_so(tmp_path: Path) -> None:
    case = stored("state", tmp_path)
    next(case.folder.glob("policy_pre*.safetensors")).unlink()
    with pytest.raises(MissingFileError, match="policy_preprocessor_step_3"):
        read_lerobot(case.folder)
    (case.folder / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model.safetensors do not exist"):
        read_lerobot(case.folder)
    with pytest.raises(MissingFileError, match=r"config.json does not exist"):
        read_lerobot(tmp_path)


@pytest.fixture(scope="module")
def lerobot_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LeRobot writes and answers today, in the interpreter that LEROBOT_PYTHON names."""
    python = os.environ.get("LEROBOT_PYTHON")
    if not python or not Path(python).exists():
        pytest.skip("needs LEROBOT_PYTHON, an interpreter with lerobot 0.4.4 (CONTRIBUTING.md)")
    folder = tmp_path_factory.mktemp("lerobot")
    script = Path(__file__).with_name("lerobot_side.py")
    done = subprocess.run([python, script, folder], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_real_lerobot_and_this_policy_answer_the_same(name: str, lerobot_cases: Path) -> None:
    case = Case.read(lerobot_cases / name)
    difference = case.largest_difference(read_lerobot(case.folder))
    print(f"{name}: {difference:.1e}; {case.told['versions']} here torch {torch.__version__}")
    assert difference <= TOLERANCE
    fixture = Case.read(FIXTURES / name)
    np.testing.assert_allclose(case.predictions, fixture.predictions, atol=STORED.get(name, TOLERANCE), rtol=0)
    assert case.told["shapes"] == fixture.told["shapes"]
