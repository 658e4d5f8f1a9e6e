"""LeRobot's methods around a policy of ours act as our controller does, number for number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_policy import RecedingHorizonController
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig
from diffusion_policy.policies.lerobot_style import LeRobotStylePolicy, default_keys

OBS = {"pos": ObsField("low_dim", (2,)), "front": ObsField("rgb", (32, 40, 3)), "points": ObsField("low_dim", (3, 2))}
NET = {"name": "unet1d", "down_dims": [8, 16], "n_groups": 4, "embed_dim": 8, "kernel_size": 3}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = DiffusionPolicyConfig.from_plain(
        {"horizons": {"obs_horizon": 2, "action_horizon": 3, "pred_horizon": 8}, "denoiser": NET}
    )
    policy = DiffusionPolicy(config, OBS, ActionSpec((2,), low=-3.0, high=3.0))
    rows = torch.randn(50, 2)
    policy.fit_normalizers({"pos": rows, "points": torch.randn(50, 3, 2)}, rows)
    path = tmp_path_factory.mktemp("policy") / "policy.pt"
    policy.save(path)
    return path


def seen(steps: int, rows: int = 2) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "pos": rng.standard_normal((rows, 2)).astype(np.float32),
            "front": rng.integers(0, 256, (rows, 32, 40, 3), dtype=np.uint8),
            "points": rng.standard_normal((rows, 3, 2)).astype(np.float32),
        }
        for _ in range(steps)
    ]


def batch(obs: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns an observation as LeRobot's programs hand it over."""
    rows = len(obs["pos"])
    state = np.concatenate([obs["pos"], obs["points"].reshape(rows, -1)], 1)
    pictures = torch.from_numpy(obs["front"]).permute(0, 3, 1, 2).float() / 255
    return {"observation.state": torch.from_numpy(state), "observation.images.front": pictures, "task": "push"}


def test_lerobot_style_policy_acts_as_the_controller(saved: Path) -> None:
    style, controller = LeRobotStylePolicy.load(saved), RecedingHorizonController.load(saved)
    for seeds in ([3, 4], [5, 6]):  # two episodes
        style.reset(seeds=seeds)
        controller.reset(seeds=seeds)
        for obs in seen(8):
            np.testing.assert_array_equal(style.select_action(batch(obs)).numpy(), controller.act(obs))


def test_lerobot_style_chunk_is_what_select_action_sends(saved: Path) -> None:
    style, chunked = LeRobotStylePolicy.load(saved), LeRobotStylePolicy.load(saved)
    noise = torch.randn(2, 8, 2)
    first, *later = seen(3)
    chunk = chunked.predict_action_chunk(batch(first), noise=noise)
    assert chunk.shape == (2, 3, 2)
    sent = [style.select_action(batch(first), noise=noise), *(style.select_action(batch(obs)) for obs in later)]
    torch.testing.assert_close(torch.stack(sent, 1), chunk, rtol=0, atol=0)
    again = chunked.predict_action_chunk(batch(later[0]), noise=noise)  # the window has moved on
    expected = RecedingHorizonController.load(saved).policy.predict(
        {key: np.stack([first[key], later[0][key]], 1) for key in OBS}, noise.numpy()
    )
    np.testing.assert_array_equal(again.numpy(), np.clip(expected.actions, -3, 3))


def test_lerobot_style_keys_may_be_given(saved: Path) -> None:
    assert default_keys(OBS)["points"] == "observation.state"
    assert default_keys({"observation.state": OBS["pos"]}) == {"observation.state": "observation.state"}
    keys = {"points": "observation.environment_state", "front": "observation.image"}
    style, noise, obs = LeRobotStylePolicy.load(saved, keys=keys), torch.randn(2, 8, 2), seen(1)[0]
    given = {
        "observation.state": torch.from_numpy(obs["pos"]),
        "observation.image": batch(obs)["observation.images.front"],
    }
    given["observation.environment_state"] = torch.from_numpy(obs["points"].reshape(2, 6))
    expected = LeRobotStylePolicy.load(saved).select_action(batch(obs), noise)
    torch.testing.assert_close(style.select_action(given, noise), expected, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="no observation is called wrist, the policy has: pos, front, points"):
        LeRobotStylePolicy.load(saved, keys={"wrist": "observation.image"})


def test_lerobot_style_policy_refuses_what_does_not_fit(saved: Path) -> None:
    style, good = LeRobotStylePolicy.load(saved), batch(seen(1)[0])
    image, state = "observation.images.front", "observation.state"
    for changes, message in (
        ({image: None}, "the batch lacks observation.images.front: it has observation.state"),
        ({image: 255 * good[image]}, "must be floats 0-1, but reaches from"),
        ({image: good[image][0]}, r"must be \(B, channels, height, width\)"),
        ({image: good[image].permute(0, 2, 3, 1)}, "must have shape"),
        ({state: good[state][:, :7]}, r"observation.state must be \(B, 8\), but got \(2, 7\)"),
        ({state: good[state] * float("nan")}, "must be finite"),
    ):
        given = {name: value for name, value in {**good, **changes}.items() if value is not None}
        with pytest.raises(ObservationError, match=message):
            style.select_action(given)
    style.select_action(good)
    with pytest.raises(ObservationError, match="expected 2 rows, but got 1"):
        style.select_action(batch(seen(1, rows=1)[0]))
    style.reset(seeds=[1])
    with pytest.raises(ConfigError, match="one number a row, 2, but got 1"):
        style.select_action(good)


def test_lerobot_style_horizons_are_the_policy_s(saved: Path) -> None:
    assert LeRobotStylePolicy.load(saved).policy.horizons == Horizons(2, 3, 8)
