"""policy.pt is data: it comes back exactly, and everything that is not data is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.errors import CheckpointError, MissingFileError, StorageError
from diffusion_policy.models.denoiser import BACKBONES
from diffusion_policy.models.unet1d import ConditionalUnet1D
from diffusion_policy.policies import data_file
from diffusion_policy.policies.checkpoint import FORMAT
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.info import CheckpointInfo
from tests.policies.test_diffusion_policy import CONFIG, make_obs, make_policy

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "policy.pt"
    make_policy().save(path, CheckpointInfo(env={"id": "x:Y-v0"}, dataset={"digest": "abc"}))
    return path


def test_checkpoint_round_trip_predicts_the_same_numbers(saved: Path) -> None:
    noise = np.ones((2, 8, 2), np.float32)
    loaded = DiffusionPolicy.load(saved)
    np.testing.assert_array_equal(
        loaded.predict(make_obs(2), noise).actions, make_policy().predict(make_obs(2), noise).actions
    )
    assert loaded.config.to_plain() == CONFIG.to_plain()
    assert loaded.info.env == {"id": "x:Y-v0"}
    assert not loaded.training


def test_checkpoint_holds_plain_values_and_tensors_under_the_contract_s_names(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    names = {"format", "config", "obs_spec", "action_spec", "state_dict", "env", "dataset", "training", "versions"}
    assert names | {"eval"} == set(content)
    assert content["versions"]["torch"] == torch.__version__.split("+")[0] or content["versions"]["torch"]

    def check(value: object) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                assert isinstance(key, str)
                check(each)
        elif isinstance(value, list):
            for each in value:
                check(each)
        else:
            assert value is None or isinstance(value, (str, int, float, bool, torch.Tensor)), type(value)

    check(content)


@pytest.mark.parametrize("keep", [0, 10, 1000, -100])
def test_checkpoint_cut_short_is_refused(saved: Path, keep: int) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match="cut short or not a policy checkpoint"):
        DiffusionPolicy.load(saved)


def test_checkpoint_with_a_flipped_bit_is_refused(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: \S+ is not what was written"):
        DiffusionPolicy.load(saved)


def test_exported_policy_is_not_called_a_damaged_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "policy.onnx").touch()
    with pytest.raises(CheckpointError, match="is an exported policy; expected the policy checkpoint"):
        DiffusionPolicy.load(tmp_path / "policy.onnx")


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_checkpoint_that_would_execute_code_is_refused_and_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "policy.pt"
    if writer == "torch":
        torch.save({"format": FORMAT, "config": _Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"format": FORMAT, "config": _Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"execute code \(refused\)|cut short or not"):
        DiffusionPolicy.load(path)
    assert not (tmp_path / "executed").exists()


def test_checkpoint_of_a_newer_format_says_upgrade(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    torch.save({**content, "format": FORMAT + 1}, saved)
    with pytest.raises(CheckpointError, match=f"has format {FORMAT + 1}, this version reads up to {FORMAT}; upgrade"):
        DiffusionPolicy.load(saved)


def test_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no format number"):
        DiffusionPolicy.load(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(CheckpointError, match="expected a mapping"):
        DiffusionPolicy.load(path)
    with pytest.raises(MissingFileError, match="does not exist"):
        DiffusionPolicy.load(tmp_path / "none.pt")


def test_checkpoint_with_missing_sections_or_foreign_weights_is_refused(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    torch.save({k: v for k, v in content.items() if k != "obs_spec"}, saved)
    with pytest.raises(CheckpointError, match="obs_spec missing"):
        DiffusionPolicy.load(saved)
    torch.save({**content, "state_dict": {}}, saved)
    with pytest.raises(CheckpointError, match="weights do not fit"):
        DiffusionPolicy.load(saved)


def test_checkpoint_of_an_unknown_backbone_names_the_module_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MyNet(ConditionalUnet1D):
        pass

    monkeypatch.setitem(BACKBONES._entries, "mine", MyNet)
    policy = make_policy(type(CONFIG)(**{**CONFIG.__dict__, "denoiser": {**CONFIG.denoiser, "name": "mine"}}))
    policy.save(tmp_path / "policy.pt")
    monkeypatch.delitem(BACKBONES._entries, "mine")
    with pytest.raises(CheckpointError, match=rf"plugins=\[{__name__}\]"):
        DiffusionPolicy.load(tmp_path / "policy.pt")


def test_checkpoint_on_a_full_disk_keeps_the_old_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_file.torch, "save", full)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        make_policy().save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("policy_format*.pt")), ids=lambda p: p.stem)
def test_checkpoint_of_every_released_format_still_predicts_its_recorded_action(path: Path) -> None:
    recorded = np.load(path.with_suffix(".npy"))
    policy = DiffusionPolicy.load(path)
    chunk = policy.predict(make_obs(2), np.ones((2, *policy.noise_shape), np.float32))
    np.testing.assert_allclose(chunk.actions, recorded, rtol=1e-4, atol=1e-2)


def test_every_released_format_has_a_fixture() -> None:
    assert {p.stem for p in FIXTURES.glob("policy_format*.pt")} == {f"policy_format{n}" for n in range(1, FORMAT + 1)}
