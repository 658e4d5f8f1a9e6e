"""A run on pictures: the same path as on numbers, exact resume with random crops, from memory or from a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from diffusion_policy import RecedingHorizonController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, ObservationError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.training.run import train
from tests.training.mirrored_points import MirroredPoints
from tests.training.runs import assert_same_run

Make = Callable[..., dict[str, Any]]
FRONT = {"type": "rgb", "shape": [32, 40, 3], "source": "img"}
ENCODER = {"types": {"rgb": {"crop": 0.8, "num_keypoints": 4, "feature_dim": 4}}}


def picture(pos: np.ndarray) -> np.ndarray:
    """A spot (32, 40, 3) where the point is."""
    rows, columns = np.mgrid[0:32, 0:40]
    row, column = np.clip((pos + 2) / 4, 0.1, 0.9) * [32, 40]
    return np.where(np.hypot(rows - row, columns - column)[..., None] < 4, 255, [30, 60, 90]).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path, dataset: Path) -> Path:
    """The points of `dataset`, drawn; each is to go back to the middle, as its picture says."""
    path = tmp_path / "pictures.zarr"
    with ReplayBuffer.open(dataset) as points, ReplayBuffer.create(path) as drawn:
        for i in range(points.num_episodes):
            episode = points.get_episode(i)
            images = np.array([picture(pos) for pos in episode["pos"]])
            drawn.add_episode({"pos": episode["pos"], "action": -episode["pos"], "img": images})
    return path


@pytest.fixture
def make_pictures(make_config: Make, pictures: Path) -> Make:
    def make(out: Path, **training: Any) -> dict[str, Any]:
        config = make_config(
            out, **{"num_grad_steps": 12, "checkpoint_every": 6, "val_every": 6, "log_every": 6, **training}
        )
        obs = {"front": FRONT, "pos": {"type": "low_dim", "shape": [2]}}
        return {**config, "dataset": str(pictures), "obs": obs, "encoder": ENCODER}

    return make


def test_run_on_pictures_learns_from_them(tmp_path: Path, make_pictures: Make) -> None:
    config = make_pictures(tmp_path / "run", num_grad_steps=200, val_every=100)
    config["obs"] = {"front": FRONT}
    run = train({**config, "optim": {"lr": 5e-3, "warmup_steps": 5}, "encoder": {**ENCODER, "hidden_dims": [32, 32]}})
    policy = run.policy
    assert policy.normalized_keys == []
    noise = np.zeros((1, 4, 2), np.float32)

    def act(x: float, y: float) -> np.ndarray:
        image = picture(np.array([x, y]))
        return np.asarray(policy.predict({"front": np.stack([image, image])[None]}, noise).actions[0, 0])

    assert np.abs(act(1.0, 0.0) - act(-1.0, 0.0)).max() > 0.2  # it looks


def test_run_on_pictures_interrupted_and_resumed_equals_one_never_stopped(tmp_path: Path, make_pictures: Make) -> None:
    """Random crops draw from a generator that is part of the state."""
    whole = train({**make_pictures(tmp_path / "whole"), "optim": {"lr_schedule": "constant", "warmup_steps": 1}})
    parts = make_pictures(tmp_path / "parts", num_grad_steps=6)
    train({**parts, "optim": {"lr_schedule": "constant", "warmup_steps": 1}})
    torch.rand(7)  # whatever else drew in between
    train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 12}})
    assert_same_run(whole.out, tmp_path / "parts")


def test_run_from_a_file_of_pictures_equals_one_from_memory(
    tmp_path: Path, make_pictures: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    near = train(make_pictures(tmp_path / "near"))
    config = make_pictures(tmp_path / "far")
    far = train({**config, "data": {**config["data"], "memory_limit": "1KB"}})
    assert len(list((tmp_path / "cache" / "diffusion_policy").glob("*.raw"))) == 1
    assert_same_run(near.out, far.out)


def test_run_on_mirrored_pictures_ends_and_records_it(
    tmp_path: Path, make_pictures: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MirroredPictures(MirroredPoints):
        def __init__(self) -> None:
            super().__init__()
            front = gym.spaces.Box(0, 255, (32, 40, 3), np.uint8)
            self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "front": front})  # type: ignore[attr-defined]

        def mirror(self, obs: Any, action: Any) -> Any:
            return {"pos": -obs["pos"], "front": obs["front"][:, ::-1, ::-1]}, -action

    gym.register("MirroredPictures-v0", MirroredPictures)
    try:
        config = make_pictures(tmp_path / "run")
        config["env"], config["data"]["mirror"] = {"id": "MirroredPictures-v0"}, True
        assert train(config).policy.info.dataset["mirrored"] is True
    finally:
        del gym.registry["MirroredPictures-v0"]


def test_policy_of_pictures_is_saved_loaded_and_acts(tmp_path: Path, make_pictures: Make) -> None:
    run = train(make_pictures(tmp_path / "run", num_grad_steps=2))
    loaded = DiffusionPolicy.load(run.out / "policy.pt")
    image = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 40, 3), dtype=np.uint8)
    obs = {"front": image, "pos": np.zeros((3, 2, 2), np.float32)}
    noise = np.ones((3, 4, 2), np.float32)
    np.testing.assert_array_equal(loaded.predict(obs, noise).actions, run.policy.predict(obs, noise).actions)
    controller = RecedingHorizonController(loaded)
    assert controller.act({"front": image[0, 0], "pos": np.zeros(2, np.float32)}).shape == (2,)
    with pytest.raises(ObservationError, match="observation 'front' must be an image of uint8 0-255"):
        controller.act({"front": image[0, 0] / 255, "pos": np.zeros(2, np.float32)})
    with pytest.raises(ObservationError, match="the channels come first here"):
        controller.act({"front": np.moveaxis(image[0, 0], -1, 0), "pos": np.zeros(2, np.float32)})
    with pytest.raises(ObservationError, match=r"'front' must be uint8 pictures 0-255, but got torch\.float32"):
        loaded.predict({**obs, "front": image.astype(np.float32)}, noise)


def test_run_on_pictures_refuses_what_does_not_fit_by_name(tmp_path: Path, make_pictures: Make) -> None:
    config = make_pictures(tmp_path / "run")
    pos = config["obs"]["pos"]
    for front, error, message in (
        ({**FRONT, "source": "camera"}, DataError, "obs.front needs data 'camera', but the data set has: action, img"),
        ({**FRONT, "shape": [32, 32, 3]}, DataError, r"obs.front must have shape \(32, 32, 3\).*has \(32, 40, 3\)"),
        ({**FRONT, "shape": [3, 32, 40]}, ConfigError, r"obs.front: .* channels come last: write \[32, 40, 3\]"),
    ):
        with pytest.raises(error, match=message):
            train({**config, "obs": {"front": front, "pos": pos}})
        assert not (tmp_path / "run").exists()
