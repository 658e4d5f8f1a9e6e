"""The simulator agrees with what it recorded, and with nothing else."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, DiffusionPolicyError
from diffusion_policy.rollout.actors import ExpertActor, NoisyActor, RandomActor
from diffusion_policy.rollout.collect import collect
from diffusion_policy.rollout.physics import PhysicsReport, check_physics


@pytest.fixture(scope="module", params=["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5"])
def recorded(request, tmp_path_factory: pytest.TempPathFactory) -> ReplayBuffer:
    out = tmp_path_factory.mktemp("physics") / "a.zarr"
    collect(request.param, RandomActor(), steps=1500, seed=0, out=out, keep="all", progress=False)
    return ReplayBuffer.open(out)


def changed(buffer: ReplayBuffer, **columns) -> ReplayBuffer:
    """Returns the same episodes with other columns, (N, *shape)."""
    copy = ReplayBuffer.create(attrs=buffer.attrs)
    for i in range(buffer.num_episodes):
        rows = buffer.episode_slice(i)
        copy.add_episode(buffer.get_episode(i) | {key: values[rows] for key, values in columns.items()})
    return copy


def report_of(buffer: ReplayBuffer, env_id: str | None = None, **settings) -> PhysicsReport:
    return check_physics(buffer, env_id, progress=False, **settings)


def test_physics_of_recorded_steps_is_exact(recorded: ReplayBuffer) -> None:
    report = report_of(recorded, samples=400)
    size = recorded.shape("observation")[0]
    assert report.names == (*(f"observation[{i}]" for i in range(size)), "reward")
    assert len(report.errors) + report.clipped == 400
    assert report.share_within(1e-4) == 1.0
    assert not report.wrong


@pytest.mark.parametrize("kind", ["noise", "shifted actions", "scaled actions", "rewards"])
def test_physics_of_anything_else_is_wrong(recorded: ReplayBuffer, kind: str) -> None:
    rng = np.random.default_rng(0)
    obs, action, reward = recorded["observation"], recorded["action"], recorded["reward"]
    columns = {
        "noise": {
            "observation": (obs.mean(0) + obs.std(0) * rng.normal(size=obs.shape)).astype(np.float32).clip(-9, 9)
        },
        "shifted actions": {"action": np.roll(action, 1, axis=0)},
        "scaled actions": {"action": 0.5 * action},
        "rewards": {"reward": reward + 1},
    }[kind]
    report = report_of(changed(recorded, **columns), samples=200)
    assert report.wrong
    if kind == "rewards":
        others = PhysicsReport(report.names[:-1], report.scale[:-1], report.errors[:, :-1], 0)
        assert not others.wrong


def test_steps_with_clipped_velocities_are_left_out_and_counted(tmp_path: Path) -> None:
    kicking = NoisyActor(RandomActor(), 100.0)  # to one end of the action space or the other
    settings = {"steps": 900, "seed": 0, "keep": "all", "next_obs": False, "progress": False}
    collect("Hopper-v5", kicking, out=tmp_path / "a.zarr", **settings)
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    fast = np.abs(buffer["observation"][:, -6:]).max(axis=1) >= 10
    inside = np.delete(fast, buffer.episode_ends - 1)
    report = report_of(buffer)
    assert report.clipped == inside.sum() > 0
    assert len(report.errors) == (~inside).sum()
    assert report.share_within(1e-4) == 1


def test_next_observations_are_used_where_there_are_any(tmp_path: Path) -> None:
    env, episodes = gym.make("HalfCheetah-v5"), ReplayBuffer.create(attrs={"provenance": {"env_id": "HalfCheetah-v5"}})
    obs, _ = env.reset(seed=0)
    for _ in range(30):  # episodes of one step: no row follows
        action = env.action_space.sample()
        after, reward, *_ = env.step(action)
        step = {"observation": obs, "action": action, "reward": np.float32(reward), "next_observation": after}
        episodes.add_episode({key: np.asarray(value, np.float32)[None] for key, value in step.items()})
        obs = after
    report = report_of(episodes)
    assert len(report.errors) == 30
    assert report.share_within(1e-4) == 1
    without = ReplayBuffer.create()
    without.add_episode(episodes.get_episode(0, ["observation", "action"]))
    with pytest.raises(DataError, match="no step to compare"):
        report_of(without, "HalfCheetah-v5")


@pytest.mark.parametrize("name", ["PushT", "Detour", "PickPlace"])
def test_physics_of_own_environments_is_exact_from_their_state(name: str, tmp_path: Path) -> None:
    env_id, keys = f"diffusion_policy_envs:{name}-v0", {"obs_keys": ["state"]}
    settings = {"episodes": 2, "seed": 0, "keep": "all", "progress": False, "env_kwargs": keys}
    buffer = ReplayBuffer.open(collect(env_id, ExpertActor(), out=tmp_path / "a.zarr", **settings).out)
    report = report_of(buffer)
    assert len(report.errors) == 20
    assert report.share_within(1e-4) == 1
    assert report_of(changed(buffer, action=buffer["action"][::-1].copy())).wrong


@pytest.mark.parametrize(
    ("env_id", "keys", "message"),
    [
        (None, {"observation": 11}, "names no environment; give one with --env ID"),
        ("Pendulum-v1", {"observation": 3}, "its PendulumEnv has no set_state"),
        ("Reacher-v5", {"observation": 10}, "its observation is not made of the 4 positions"),
        ("diffusion_policy_envs:PushT-v0", {"agent_pos": 2}, "can only be put into a recorded state by `state`"),
        ("diffusion_policy_envs:PushT-v0", {"state": 7}, "reset(options="),
        ("toys/Chaos-v0", {"state": 2}, "refused its arguments"),
    ],
)
def test_physics_says_what_is_missing(env_id, keys, message) -> None:
    buffer = ReplayBuffer.create()
    buffer.add_episode({"action": np.zeros((5, 2)), **{key: np.zeros((5, size)) for key, size in keys.items()}})
    with pytest.raises(DiffusionPolicyError) as raised:
        report_of(buffer, env_id)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_physics_of_another_robot_is_refused(recorded: ReplayBuffer) -> None:
    wrong = "Hopper-v5" if recorded.shape("observation") != (11,) else "Walker2d-v5"
    with pytest.raises(DataError, match=f"numbers for {wrong}"):
        report_of(recorded, wrong)
    with pytest.raises(ConfigError, match="samples must be at least 1"):
        report_of(recorded, samples=0)
