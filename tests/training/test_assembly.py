"""What a configuration is assembled into."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from diffusion_policy.errors import ConfigError
from diffusion_policy.training.assembly import assemble
from tests.training.mirrored_points import MirroredPoints


class OneSided(MirroredPoints):
    mirror = None


class Robot(OneSided):
    def __init__(self) -> None:
        raise AssertionError("training moved the robot")


class Absent(MirroredPoints):
    def __init__(self) -> None:
        raise OSError("libGL.so.1: cannot open shared object file")


ENVIRONMENTS = {
    "Board-v0": MirroredPoints,
    "OneSided-v0": OneSided,
    "Robot-v0": Robot,
    "Absent-v0": Absent,
}


@pytest.fixture(autouse=True)
def environments():
    for name, entry in ENVIRONMENTS.items():
        gym.register(name, entry)
    yield
    for name in ENVIRONMENTS:
        del gym.registry[name]


def assembled(make_config, tmp_path: Path, env_id: str | None, mirror: bool | str):
    config = make_config(tmp_path / "run")
    config["data"]["mirror"] = mirror
    return assemble({**config, "env": {"id": env_id, "kwargs": {}}})


def test_mirror_doubles_training_and_leaves_validation_alone(make_config, tmp_path: Path) -> None:
    plain = assembled(make_config, tmp_path, "Board-v0", False)
    both = assembled(make_config, tmp_path, "Board-v0", True)
    assert len(both.data.train) == 2 * len(plain.data.train)
    assert len(both.data.held_out) == len(plain.data.held_out)
    positions = both.data.train.all_obs("pos")
    np.testing.assert_array_equal(positions[plain.data.train.num_steps :], -positions[: plain.data.train.num_steps])
    centred = both.loop.objective.model.obs_normalizers[0].normalize(torch.zeros(2))
    assert torch.allclose(centred, torch.zeros(2), atol=1e-6), "the normaliser did not see the images"


@pytest.mark.parametrize(
    ("env_id", "mirror", "expected"),
    [
        ("Board-v0", "auto", True),
        ("Board-v0", False, False),
        ("OneSided-v0", "auto", False),
        ("Robot-v0", "auto", False),
        ("Absent-v0", "auto", False),
        ("nowhere:None-v0", "auto", False),
        (None, "auto", False),
    ],
)
def test_settings_say_whether_auto_mirrored(env_id, mirror, expected, make_config, tmp_path: Path) -> None:
    assert assembled(make_config, tmp_path, env_id, mirror).settings["data"]["mirror"] is expected


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("OneSided-v0", "OneSided-v0 has no mirror.*; install or correct the environment, or .* data.mirror=false"),
        ("nowhere:None-v0", "no package 'nowhere'"),
        ("Absent-v0", "libGL"),
        (None, "names no environment"),
    ],
)
def test_mirror_that_is_not_there_is_an_error_when_asked_for(env_id, message, make_config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        assembled(make_config, tmp_path, env_id, True)


def test_mirror_takes_only_true_false_or_auto(make_config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.mirror: expected .*auto"):
        assembled(make_config, tmp_path, "Board-v0", "always")


def test_mirror_in_other_units_than_the_wrapped_environment_is_refused(make_config, tmp_path: Path) -> None:
    class Scaled(gym.wrappers.RescaleAction):
        def __init__(self) -> None:
            super().__init__(MirroredPoints(), np.float32(-1.0), np.float32(1.0))

        mirror = MirroredPoints.mirror  # found on the class; the one that counts is the innermost

    gym.register("Scaled-v0", Scaled)
    try:
        with pytest.raises(ConfigError, match="wrappers of Scaled-v0 change its action_space"):
            assembled(make_config, tmp_path, "Scaled-v0", True)
    finally:
        del gym.registry["Scaled-v0"]


def test_fine_tuning_says_which_actions_the_kept_normaliser_cannot_reach(make_config, tmp_path: Path, caplog) -> None:
    first = assembled(make_config, tmp_path, None, False)
    policy = first.loop.objective.model
    policy.action_normalizer.fit(policy.action_normalizer.unnormalize(torch.tensor([[-0.5] * 2, [0.5] * 2])), "limits")
    policy.save(tmp_path / "policy.pt")
    config = {**make_config(tmp_path / "run"), "init": str(tmp_path / "policy.pt")}
    assemble(config)
    assert "% of the new actions lie beyond" in caplog.text
