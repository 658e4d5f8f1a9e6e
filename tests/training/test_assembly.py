"""What a configuration is assembled into."""

import logging
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from diffusion_policy.errors import ConfigError, DataError
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


class Raising(MirroredPoints):
    def mirror(self, obs):
        return {key: -values for key, values in obs.items()}, None


class Drifting(MirroredPoints):
    def mirror(self, obs, action):
        return {key: 1.0 - 2.0 * values for key, values in obs.items()}, -action


class Blind(MirroredPoints):
    observation_space = gym.spaces.Dict({"velocity": gym.spaces.Box(-9, 9, (2,))})


ENVIRONMENTS = {
    "Raising-v0": Raising,
    "Drifting-v0": Drifting,
    "Blind-v0": Blind,
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


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Raising-v0", r"Raising\.mirror\(obs, action\) raised TypeError: .*data.mirror=false; debug=true shows where"),
        ("Drifting-v0", r"obs\.pos differs by up to"),
    ],
)
@pytest.mark.parametrize("mirror", [True, "auto"])
def test_mirror_that_is_wrong_is_refused_in_one_line(env_id, message, mirror, make_config, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        assembled(make_config, tmp_path, env_id, mirror)
    assert "\n" not in str(caught.value)


def test_mirror_that_is_used_is_announced(make_config, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    assembled(make_config, tmp_path, "Board-v0", "auto")
    assert "5 episodes and their mirror images (data.mirror)" in caplog.messages


def test_mirror_of_other_observations_is_left_with_words_that_fit_training(make_config, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    assembled(make_config, tmp_path, "Blind-v0", "auto")
    assert caplog.messages == ["demonstrations are not mirrored: Blind-v0 does not offer pos, only velocity"]


@pytest.mark.parametrize("mirror", [False, "auto"])
def test_misspelt_environment_is_warned_of_once(mirror, make_config, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    assembled(make_config, tmp_path, "diffusion_policy_envs:Pusht-v0", mirror)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "unknown environment 'diffusion_policy_envs:Pusht-v0'; close to it: diffusion_policy_envs:PushT-v0" in (
        record.getMessage()
    )


def test_environment_whose_package_is_not_here_is_no_mistake(make_config, tmp_path: Path, caplog) -> None:
    assembled(make_config, tmp_path, "nowhere:None-v0", False)
    assert caplog.messages == []


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
