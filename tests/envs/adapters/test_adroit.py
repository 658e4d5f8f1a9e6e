"""AdroitDoor-v0 against the human demonstrations of DAPG."""

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from diffusion_policy.cli.convert import main as convert
from diffusion_policy.config import obs_spec_from
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import read_obs
from diffusion_policy.paths import config_dir
from diffusion_policy_envs import gl

ROOT = Path(__file__).parents[3]
FIELDS = ["hand", "latch", "door", "palm", "handle", "palm_from_handle"]


@pytest.fixture(scope="module", autouse=True)
def robotics() -> None:
    pytest.importorskip("gymnasium_robotics", reason="needs gymnasium-robotics (extra robotics)")


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> ReplayBuffer:
    """The human ones, as dp-convert writes them."""
    source = Path(os.environ.get("DP_DATA_DIR", "")) / "hand_dapg"
    if not (source / "door-v0_demos.npz").is_file():
        pytest.skip("needs DAPG's door demonstrations below DP_DATA_DIR")
    out = tmp_path_factory.mktemp("adroit") / "door.zarr"
    mapping = str(ROOT / "scripts/reproduce/adroit_door.yaml")
    assert convert([str(source), str(out), "--mapping", mapping, "--clip", "action=-1:1"]) == 0
    return ReplayBuffer.open(out)


def make(**kwargs: Any) -> Any:
    return gym.make("diffusion_policy_envs:AdroitDoor-v0", **kwargs).unwrapped


def joined(obs: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([obs[key] for key in FIELDS])


def test_task_reads_the_demonstrations_as_the_environment_names_them(demonstrations: ReplayBuffer) -> None:
    spec = obs_spec_from(yaml.safe_load((config_dir() / "task" / "adroit_door.yaml").read_text())["obs"])
    assert list(spec) == FIELDS
    assert demonstrations.num_episodes == 25
    seen = demonstrations.get_episode(3)["observation"]
    read = [read_obs(key, field, demonstrations, [3]) for key, field in spec.items()]
    np.testing.assert_array_equal(np.concatenate(read, axis=1), seen[:, :38])
    env = make()
    assert {key: env.observation_space[key].shape for key in spec} == {key: field.shape for key, field in spec.items()}


def test_recorded_observations_tell_where_arm_and_door_stood(demonstrations: ReplayBuffer) -> None:
    """All that the package computes of positions comes out as recorded; of moving arms it recorded it 2 ms late."""
    env = make()
    for index in range(0, 25, 6):
        for step, seen in list(enumerate(demonstrations.get_episode(index)["observation"]))[::60]:
            rebuilt = joined(env.observe({"observation": seen}))
            np.testing.assert_allclose(rebuilt, seen[:38], atol=1e-5 if step == 0 else 0.02)


def test_human_demonstrations_replay(demonstrations: ReplayBuffer) -> None:
    """Open loop over some 250 steps, from rest: the door opens as far as it did on the recording."""
    env = make(obs_keys=["state"])
    for index in (4, 16, 24):
        episode = demonstrations.get_episode(index)
        start = env._recorded({"observation": episode["observation"][0]})
        env.reset(options={"state": start})
        doors = [env.step(action)[-1]["door"] for action in episode["action"]]
        assert max(doors) == pytest.approx(episode["observation"][:, 28].max(), abs=0.03)
        assert (max(doors) >= 1.35) == (index != 4)


def test_success_and_subgoals_are_angles_of_the_door() -> None:
    env = make(obs_keys=["state"])
    state = env.reset(seed=0)[0]["state"]
    said = []
    for angle in (0.1, 0.3, 1.1, 1.36):
        state[28] = angle
        info = env.reset(options={"state": state})[1]
        said.append((*info["subgoals"].values(), info["is_success"]))
        assert info["door"] == pytest.approx(angle)
    assert said == [(False,) * 3, (True, False, False), (True, True, False), (True,) * 3]


def test_a_recorded_state_goes_on_as_it_did() -> None:
    env, other = make(obs_keys=["state"]), make(obs_keys=["state"])
    env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(20):
        obs = env.step(env.action_space.sample())[0]
    actions = [env.action_space.sample() for _ in range(10)]
    other.reset(options={"state": obs["state"]})
    after = [each.step(action)[0]["state"] for each in (env, other) for action in actions]
    np.testing.assert_allclose(after[:10], after[10:], atol=0.05)
    assert np.abs(after[9] - obs["state"]).max() > 0.5


@pytest.mark.skipif(not gl.can_draw(), reason="no OpenGL")
def test_pictures_show_recorded_steps_and_leave_the_episode_alone() -> None:
    quiet, drawn = make(obs_keys=["state"]), make(obs_keys=["state", "image"], image_size=32, render_mode="rgb_array")
    states = []
    for env in (quiet, drawn):
        env.reset(seed=2)
        env.action_space.seed(2)
        for _ in range(5):
            obs = env.step(env.action_space.sample())[0]
            env.render()
        states.append(obs["state"])
    np.testing.assert_array_equal(*states)
    np.testing.assert_array_equal(drawn.picture({"state": states[0]}, 32), obs["image"])
    opened = states[0].copy()
    opened[28] = 1.5
    assert np.abs(drawn.picture({"state": opened}, 32).astype(int) - obs["image"]).max() > 50


def test_a_step_that_does_not_tell_the_pose_is_explained() -> None:
    with pytest.raises(ValueError, match="must hold state, observation or hand, latch, door, palm, handle, but it has"):
        make().picture({"hand": np.zeros(27)}, 64)
    with pytest.raises(ValueError, match=r"reward_type must be one of \['dense', 'sparse'\]"):
        make(reward_type="kind")
