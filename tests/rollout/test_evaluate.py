import csv
import json

import numpy as np
import pytest
import torch

from diffusion_policy.errors import (
    ConfigError,
    DiffusionPolicyError,
    EnvironmentIdError,
    ObservationError,
    RenderError,
    StorageError,
)
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.evaluate import EvaluationInterrupted, evaluate

CHAOS = "toys/Chaos-v0"


def run(policy, env_id=CHAOS, **settings):
    settings = {"episodes": 9, "seed": 100, "progress": False, **settings}
    return evaluate(RecedingHorizonController(policy), env_id, **settings)


def mlp_policy(toy_policy, width=128):
    """A policy whose rows depend, in the last digits, on the number of rows computed with them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4 + 16, width), torch.nn.Mish(), torch.nn.Linear(width, width), torch.nn.Mish(),
        torch.nn.Linear(width, 16),
    )  # fmt: skip

    class Mlp(toy_policy):
        @torch.inference_mode()
        def predict(self, obs, noise):
            self.batches.append(len(noise))
            inputs = torch.cat([torch.from_numpy(obs["pos"]).flatten(1), torch.from_numpy(noise).flatten(1)], dim=1)
            prediction = net(inputs).unflatten(1, (8, 2)).sin().numpy()
            return ActionChunk(prediction[:, 1:5], prediction)

    return Mlp()


@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_episodes_are_bit_equal_for_any_number_of_envs(toy_policy, kind, batch_size):
    def episodes(num_envs):
        policy = toy_policy() if kind == "numpy" else mlp_policy(toy_policy)
        result = run(policy, num_envs=num_envs, batch_size=batch_size)
        assert set(policy.batches) == {batch_size}
        return result.per_episode

    alone = episodes(1)
    assert len({each.episode_return for each in alone}) == 9
    for num_envs in (2, 5, 9, 40):
        assert episodes(num_envs) == alone


def test_episode_is_what_a_controller_does_step_by_step(toy_policy, toys):
    env = toys()
    controller = RecedingHorizonController(toy_policy(), batch_size=4, seeds=103)
    obs, _ = env.reset(seed=103)
    rewards, terminated = [], False
    while not terminated:
        obs, reward, terminated, _, _ = env.step(controller.act(obs))
        rewards.append(reward)
    result = run(toy_policy(), num_envs=4, batch_size=4).per_episode[3]
    assert (result.seed, result.length) == (103, len(rewards))
    assert result.episode_return == np.sum(rewards)


def test_chaos_would_show_a_difference_in_the_last_digit(toy_policy):
    class Off(toy_policy):
        def predict(self, obs, noise):
            chunk = super().predict(obs, noise)
            return ActionChunk(chunk.actions * np.float32(1 + 2e-7), chunk.prediction)

    pairs = zip(run(toy_policy()).per_episode, run(Off()).per_episode, strict=True)
    assert all(abs(a.episode_return - b.episode_return) > 1e-3 for a, b in pairs)


def test_episode_i_uses_seed_plus_i_for_env_and_noise(toy_policy, toys):
    whole = run(toy_policy(), num_envs=4)
    assert sorted(seed for what, seed in toys.log if what == "reset") == list(range(100, 109))
    assert [each.seed for each in whole.per_episode] == list(range(100, 109))
    assert run(toy_policy(), episodes=1, seed=105).per_episode[0] == whole.per_episode[5]


def test_predictions_of_a_round_share_one_policy_call(toy_policy):
    policy = toy_policy()
    result = run(policy, episodes=8, num_envs=8, batch_size=8)
    lengths = [each.length for each in result.per_episode]
    assert len(set(lengths)) > 3  # they end at different times
    assert len(policy.batches) == -(-max(lengths) // 4)


def test_envs_are_closed_and_the_controller_keeps_its_batch_size(toy_policy, toys):
    controller = RecedingHorizonController(toy_policy(), batch_size=3)
    evaluate(controller, CHAOS, episodes=4, seed=0, num_envs=3, progress=False)
    assert [what for what, _ in toys.log].count("close") == 3
    assert controller.batch_size == 3


def test_return_max_reward_and_length_are_those_of_the_episode(toy_policy):
    result = run(toy_policy("observation", (1,), (1,)), "toys/Count-v0", episodes=3)
    for each in result.per_episode:
        assert (each.episode_return, each.max_reward, each.length) == (45, 9, 10)
        assert (each.terminated, each.truncated, each.success) == (False, True, None)
    assert result.success_rate is None
    assert result.max_reward.ci95 == (9, 9)
    assert all(each.terminated and not each.truncated for each in run(toy_policy()).per_episode)


def test_success_at_any_step_counts(toy_policy):
    policy = toy_policy("anything", (1,), (1,))  # a Box observation is the policy's only field
    result = run(policy, "toys/Count-v0", episodes=4, env_kwargs={"succeeds_at": 3, "only_even": True})
    assert [each.success for each in result.per_episode] == [True, False, True, False]
    assert result.success_rate.mean == 0.5


@pytest.mark.parametrize(("says", "expected"), [("success", bool), ("is_success", bool), ("", type(None))])
def test_success_is_read_under_both_names(toy_policy, says, expected):
    result = run(toy_policy(), env_kwargs={"says": says}, episodes=2)
    assert {type(each.success) for each in result.per_episode} == {expected}


def test_result_files_hold_the_contract(toy_policy, tmp_path):
    controller = RecedingHorizonController(toy_policy())
    controller.policy.sampling = {"sampler": {"num_inference_steps": 2}}
    controller.path = tmp_path / "policy.pt"
    controller.path.write_bytes(b"abc")
    result = evaluate(controller, CHAOS, episodes=5, seed=7, env_kwargs={"length": 20}, progress=False)
    result.to_json(tmp_path / "new" / "eval.json")
    result.to_csv(tmp_path / "new" / "episodes.csv")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["episodes.csv", "eval.json"]

    content = json.loads((tmp_path / "new" / "eval.json").read_text())
    assert {
        "env_id", "episodes", "seed", "max_reward", "success_rate", "return", "latency_ms", "speed", "per_episode",
        "policy", "versions", "hardware",
    } <= set(content)  # fmt: skip
    assert (content["env_id"], content["episodes"], content["seed"]) == (CHAOS, 5, 7)
    for name in ("max_reward", "success_rate", "return"):
        assert content[name]["ci95"][0] <= content[name]["mean"] <= content[name]["ci95"][1]
    assert 0 < content["latency_ms"]["p50"] <= content["latency_ms"]["p95"] <= content["latency_ms"]["p99"]
    assert content["latency_ms"]["batch_size"] == 32
    assert content["speed"]["env_steps_per_second"] > 0
    assert 0 < content["speed"]["policy_share"] < 1
    assert "env steps/s" in result.speed_summary()
    assert content["policy"]["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content["policy"]["sampling"] == {"sampler": {"num_inference_steps": 2}}
    assert content["env_kwargs"] == {"length": 20}
    assert content["return"]["mean"] == pytest.approx(np.mean([e["return"] for e in content["per_episode"]]))

    rows = list(csv.DictReader((tmp_path / "new" / "episodes.csv").read_text().splitlines()))
    assert [int(row["seed"]) for row in rows] == [7, 8, 9, 10, 11]
    assert [float(row["return"]) for row in rows] == [e["return"] for e in content["per_episode"]]


def test_result_that_cannot_be_written_says_so(toy_policy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not write"):
        run(toy_policy(), episodes=1).to_json(tmp_path / "file" / "eval.json")


@pytest.mark.parametrize("num_envs", [1, 3])
def test_interrupt_closes_envs_and_hands_over_the_complete_prefix(toy_policy, toys, num_envs):
    class Interrupted(toy_policy):
        def predict(self, obs, noise):
            if sum(what == "reset" for what, _ in toys.log) > 6:
                raise KeyboardInterrupt
            return super().predict(obs, noise)

    whole = run(toy_policy())
    toys.log.clear()
    with pytest.raises(EvaluationInterrupted) as caught:
        run(Interrupted(), num_envs=num_envs)
    assert isinstance(caught.value, KeyboardInterrupt)
    partial = caught.value.partial
    assert 3 <= partial.episodes <= 6
    assert partial.per_episode == whole.per_episode[: partial.episodes]
    assert [what for what, _ in toys.log].count("close") == num_envs


def test_interrupt_before_the_first_episode_has_no_partial_result(toy_policy):
    class Interrupted(toy_policy):
        def predict(self, obs, noise):
            raise KeyboardInterrupt

    with pytest.raises(EvaluationInterrupted, match="after 0 episodes") as caught:
        run(Interrupted())
    assert caught.value.partial is None


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("toys/Choas-v0", {}, "close to it: toys/Chaos-v0"),
        ("toys/Chaos-v3", {}, "close to it: toys/Chaos-v0"),
        ("Zzzzqqq-v0", {}, "write package:Id-v0"),
        ("no_such_package_here:Toy-v0", {}, "no package 'no_such_package_here'"),
        ("not an id!", {}, "unknown environment 'not an id!'"),
        (CHAOS, {"lenght": 3}, r"refused its arguments \(lenght=3\).*it takes: .*length"),
    ],
)
def test_wrong_environment_is_refused_with_what_would_work(toy_policy, env_id, kwargs, message):
    with pytest.raises(EnvironmentIdError, match=message):
        run(toy_policy(), env_id, env_kwargs=kwargs)


def test_package_in_the_id_is_imported(toy_policy, tmp_path, monkeypatch):
    (tmp_path / "package_for_test.py").write_text(
        "import gymnasium as gym\n"
        "class Still(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-1, 1, (1,))\n"
        "    action_space = gym.spaces.Box(-1, 1, (1,))\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return self.observation_space.low.copy(), {}\n"
        "    def step(self, action):\n"
        "        return self.observation_space.low.copy(), 0.5, True, False, {}\n"
        "gym.register('Still-v0', entry_point=Still)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = run(toy_policy("state", (1,), (1,)), "package_for_test:Still-v0", episodes=2)
    assert result.env_id == "package_for_test:Still-v0"
    assert result.max_reward.mean == 0.5
    with pytest.raises(EnvironmentIdError, match="close to it: package_for_test:Still-v0"):
        run(toy_policy(), "package_for_test:Stil-v0")


@pytest.mark.parametrize(
    ("policy", "env_id", "kind", "message"),
    [
        (("velocity", (2,)), CHAOS, ObservationError, r"reads velocity, which .* it offers pos \(2,\)"),
        (("pos", (3,)), CHAOS, ObservationError, r"pos of shape \(3,\), but toys/Chaos-v0 gives \(2,\)"),
        (("pos", (2,), (3,)), CHAOS, ConfigError, r"actions of shape \(3,\), but .* takes \(2,\)"),
        (("pos", (4,)), "toys/Discrete-v1", ConfigError, "continuous actions"),
    ],
)
def test_policy_that_does_not_fit_the_environment_is_refused(toy_policy, policy, env_id, kind, message):
    with pytest.raises(kind, match=message):
        run(toy_policy(*policy), env_id)


def test_policy_of_several_fields_is_refused_by_a_box_observation(toy_policy):
    policy = toy_policy("a", (1,), (1,))
    policy.obs_spec["b"] = policy.obs_spec["a"]
    with pytest.raises(ObservationError, match="without fields"):
        run(policy, "toys/Count-v0")


@pytest.mark.parametrize(
    "settings",
    [
        {"episodes": 0}, {"seed": -1}, {"num_envs": 0}, {"batch_size": 0}, {"workers": -1}, {"worker_timeout_s": 0},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(toy_policy, settings):
    with pytest.raises(DiffusionPolicyError, match="but got"):
        run(toy_policy(), **settings)


def test_film_renders_only_the_filmed_episodes_and_changes_nothing(toy_policy, toys):
    grid = VideoGrid(episodes=3, tile=32)
    filmed = run(toy_policy(), num_envs=4, film=grid)
    assert {seed for what, seed in toys.log if what == "render"} == {100, 101, 102}
    assert grid.num_frames == 1 + max(each.length for each in filmed.per_episode[:3])  # the start, then every step
    assert grid.fps == 20
    assert filmed.per_episode == run(toy_policy()).per_episode


@pytest.mark.parametrize(("kwargs", "expected"), [({}, (32, 32)), ({"render_size": 20}, (20, 20))])
def test_film_asks_for_frames_of_the_tile_unless_told_otherwise(toy_policy, toys, monkeypatch, kwargs, expected):
    sizes = set()
    draw = toys.render
    monkeypatch.setattr(toys, "render", lambda self: [frame := draw(self), sizes.add(frame.shape[:2])][0])
    result = run(toy_policy(), episodes=1, film=VideoGrid(tile=32), env_kwargs=kwargs)
    assert sizes == {expected}
    assert result.env_kwargs == kwargs


def test_film_of_an_environment_that_cannot_draw_says_so(toy_policy, toys, monkeypatch):
    monkeypatch.setattr(toys, "render", lambda self: 1 / 0)
    with pytest.raises(RenderError, match="evaluate without a film"):
        run(toy_policy(), film=VideoGrid())
