"""Recorded states drawn again: the very pictures that the environment showed."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.config import ObsField
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, ObservationError, OutputExistsError
from diffusion_policy.rollout.rerender import Drawing, rerender

ID = "diffusion_policy_envs:PushT-v0"
SPEC = {"image": ObsField("rgb", (32, 32, 3))}
DRAWING = Drawing(ID, {"obs_keys": ["image", "agent_pos"], "image_size": 32, "renderer": "draw2d"}, ("image",))


def record(path: Path, lengths: tuple[int, ...] = (6, 9, 5)) -> dict[str, np.ndarray]:
    """Writes episodes of states as float64 with junk pictures; returns the true pictures and states."""
    env = gym.make(ID, obs_keys=["state", "image"], image_size=32, renderer="draw2d")
    seen: dict[str, list[np.ndarray]] = {"image": [], "state": []}
    with ReplayBuffer.create(path, attrs={"made": "by hand"}) as buffer:
        for seed, length in enumerate(lengths):
            obs, _ = env.reset(seed=seed)
            states, actions = [], []
            for step in range(length):
                action = np.array([30.0 * step, 200.0], np.float32)
                states.append(env.unwrapped.physics.state.copy())  # type: ignore[attr-defined]
                actions.append(action)
                seen["image"].append(obs["image"])
                obs, *_ = env.step(action)
            junk = np.zeros((length, 9, 9, 3), np.uint8)
            buffer.add_episode({"state": np.array(states), "action": np.array(actions), "img": junk})
            seen["state"] += states
    return {key: np.array(values) for key, values in seen.items()}


def draw(source: Path, out: Path, drawing: Drawing = DRAWING, spec: Any = None, **options: Any) -> ReplayBuffer:
    return rerender(source, drawing, spec or SPEC, out, workers=1, progress=False, **options)


def test_rerender_gives_the_pictures_the_environment_showed_and_keeps_the_numbers(tmp_path: Path) -> None:
    seen = record(tmp_path / "a.zarr")
    with draw(tmp_path / "a.zarr", tmp_path / "b.zarr") as made, ReplayBuffer.open(tmp_path / "a.zarr") as source:
        assert made.keys() == ["action", "image", "state"]
        np.testing.assert_array_equal(made["image"], seen["image"])
        np.testing.assert_array_equal(made["state"], seen["state"])
        np.testing.assert_array_equal(made["action"], source["action"])
        np.testing.assert_array_equal(made.episode_ends, source.episode_ends)
        provenance = made.attrs["provenance"]
        assert provenance["source"]["digest"] == source.digest(["action", "state"])
        assert provenance["source"]["provenance"] == {"made": "by hand"}
        assert (provenance["env_id"], provenance["renderer"]) == (ID, "draw2d")


def test_interrupted_rerender_is_resumed_to_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "a.zarr")
    whole = draw(tmp_path / "a.zarr", tmp_path / "whole.zarr").digest()
    add = ReplayBuffer.add_episode

    def stopped(self: ReplayBuffer, episode: Any) -> None:
        if self.num_episodes == 1:
            raise KeyboardInterrupt
        add(self, episode)

    monkeypatch.setattr(ReplayBuffer, "add_episode", stopped)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr")
    monkeypatch.undo()
    with pytest.raises(OutputExistsError, match="resume=true"):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr")
    larger = Drawing(ID, {**DRAWING.env_kwargs, "image_size": 48}, ("image",))
    with pytest.raises(ConfigError, match="begun with another kwargs"):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr", larger, {"image": ObsField("rgb", (48, 48, 3))}, resume=True)
    assert draw(tmp_path / "a.zarr", tmp_path / "b.zarr", resume=True).digest() == whole


def test_rerender_refuses_what_cannot_be_drawn_and_leaves_nothing(tmp_path: Path) -> None:
    record(tmp_path / "a.zarr", (4,))
    with pytest.raises(ObservationError, match=r"image of shape \(64, 64, 3\), but .* gives \(32, 32, 3\)"):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr", spec={"image": ObsField("rgb", (64, 64, 3))})
    with pytest.raises(
        ObservationError,
        match=r"wrist, which .* does not offer; it offers .*image \(32, 32, 3\).*env_kwargs \(commands: \+env\.kwargs",
    ):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr", spec={"wrist": ObsField("rgb", (32, 32, 3))})
    with pytest.raises(ConfigError, match=r"Pendulum-v1 cannot draw recorded steps: expected a method observe\(obs\)"):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr", Drawing("Pendulum-v1", {}, ()), {"x": ObsField("rgb", (3,))})
    assert not (tmp_path / "b.zarr").exists()
    with ReplayBuffer.create(tmp_path / "c.zarr") as buffer:
        buffer.add_episode({"joints": np.zeros((4, 7), np.float32), "action": np.zeros((4, 2), np.float32)})
    with pytest.raises(DataError, match="episode 0 cannot be drawn: ValueError: a recorded step must hold state, or"):
        draw(tmp_path / "c.zarr", tmp_path / "b.zarr")
    with ReplayBuffer.create(tmp_path / "d.zarr") as buffer:
        buffer.add_episode({"img": np.zeros((4, 9, 9, 3), np.uint8)})
    with pytest.raises(DataError, match="but it has only pictures"):
        draw(tmp_path / "d.zarr", tmp_path / "b.zarr")
    tilted = Drawing(ID, {"obs_keys": ["tilted"], "image_size": 32, "renderer": "draw2d"}, ("tilted",))
    with pytest.raises(DataError, match="RuntimeError: camera 'tilted' needs MuJoCo's pictures"):
        draw(tmp_path / "a.zarr", tmp_path / "b.zarr", tilted, {"tilted": ObsField("rgb", (32, 32, 3))})
    assert not (tmp_path / "b.zarr").exists()
