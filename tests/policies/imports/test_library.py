"""dp-import as a person types it, and other names for the fields of an imported policy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy import import_policy, load_policy
from diffusion_policy.errors import ConfigError, MissingFileError
from diffusion_policy.policies.imports.library import parse_fields, with_fields
from tests.cli.running import dp, script
from tests.policies.imports.test_lerobot import stored
from tests.policies.imports.test_reference import DA, LOWDIM, saved, state


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(tmp_path / "latest.ckpt", LOWDIM, state(10, {"obs": 5, "action": DA}))


def test_split_vector_gives_the_same_numbers(checkpoint: Path) -> None:
    whole = import_policy(checkpoint)
    parts = import_policy(checkpoint, {"obs": {"points": (2, 2), "angle": (1,)}})
    obs = np.random.default_rng(0).standard_normal((3, 2, 5)).astype(np.float32)
    noise = np.zeros((3, *whole.noise_shape), np.float32)
    split = {"points": obs[..., :4].reshape(3, 2, 2, 2), "angle": obs[..., 4:]}
    np.testing.assert_array_equal(parts.predict(split, noise).actions, whole.predict({"obs": obs}, noise).actions)


def test_renamed_pictures_keep_their_encoder_and_its_scaling(tmp_path: Path) -> None:
    case = stored("cameras", tmp_path)
    names = {"observation.images.front": {"front": None}, "observation.state": {"arm": (2,), "grip": (1,)}}
    policy, renamed = import_policy(case.folder), import_policy(case.folder, names)
    assert list(renamed.obs_spec) == ["arm", "grip", "front", "observation.images.wrist"]
    window, noise = case.window(policy, 1), case.row_noise(policy, 1)
    moved = {
        "front": window["observation.images.front"],
        "observation.images.wrist": window["observation.images.wrist"],
    }
    moved |= {"arm": window["observation.state"][..., :2], "grip": window["observation.state"][..., 2:]}
    np.testing.assert_array_equal(renamed.predict(moved, noise).actions, policy.predict(window, noise).actions)
    with pytest.raises(ConfigError, match="cannot become front"):
        with_fields(policy, {"observation.images.front": {"front": (3, 48, 52)}})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("obs", "expected OLD=NEW"),
        ("obs=a:2x", "expected OLD=NEW"),
        ("obs=", "expected OLD=NEW"),
        ("pose=a", "no observation is called pose, it has: obs"),
        ("obs=a:2,b:2", "expected vectors of 5 numbers"),
        ("obs=a,b:2", "expected vectors of 5 numbers"),
        ("obs=a:6", "expected vectors of 5 numbers"),
        ("obs=a:2,a:3", "cannot become a"),
    ],
)
def test_fields_that_do_not_fit_are_one_line(word: str, message: str, checkpoint: Path) -> None:
    policy = import_policy(checkpoint)
    with pytest.raises(ConfigError, match=message) as caught:
        with_fields(policy, parse_fields([word]))
    assert "\n" not in str(caught.value)


def test_import_command_writes_a_policy_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = [str(checkpoint), "policy.pt", "--field", "obs=points:2x2,angle:1"]
    done = dp("imports", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 0, done.err
    assert "a checkpoint of the reference repository" in done.out
    assert "points [2, 2], angle [1] -> action [2]" in done.out
    policy = load_policy(tmp_path / "policy.pt")
    obs = {"points": torch.zeros(1, 2, 2, 2), "angle": torch.zeros(1, 2, 1)}
    assert policy.predict(obs).actions.shape == (1, 3, DA)
    (tmp_path / "odd").mkdir()
    torch.save({"cfg": Path("x"), "state_dicts": {}}, tmp_path / "odd" / "a.ckpt")
    for words, message in (
        ([str(checkpoint), "policy.pt"], "already exists"),
        ([str(checkpoint), "policy.onnx"], "out must end in .pt"),
        (["nowhere", "b.pt"], "nowhere does not exist"),
        (
            ["odd", "b.pt"],
            "odd/config.json does not exist; expected a folder that LeRobot's save_pretrained has written",
        ),
        (["odd/a.ckpt", "b.pt"], "odd/a.ckpt: its configuration holds a "),
        (["policy.pt", "b.pt"], "policy.pt is a policy.pt already; use it as it is"),
    ):
        done = dp("imports", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert message in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"latest.ckpt", "odd", "policy.pt"}


def test_import_command_reads_the_folder_that_a_training_of_lerobot_leaves(tmp_path: Path) -> None:
    case = stored("state", tmp_path)
    (tmp_path / "last").mkdir()
    case.folder.rename(tmp_path / "last" / "pretrained_model")
    done = script("import_", str(tmp_path / "last"), str(tmp_path / "policy.pt"), folder=tmp_path)
    assert done.code == 0, done.err
    assert "LeRobot's DiffusionPolicy" in done.out
    with pytest.raises(MissingFileError, match="does not exist; expected a LeRobot folder"):
        import_policy(tmp_path / "none")
