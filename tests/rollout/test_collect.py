import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout import collect as collect_module
from diffusion_policy.rollout import parts
from diffusion_policy.rollout.actors import ExpertActor, PolicyActor, RandomActor
from diffusion_policy.rollout.collect import collect
from diffusion_policy.rollout.evaluate import evaluate

COUNT, CHAOS = "toys/Count-v0", "toys/Chaos-v0"
HALF = {"succeeds_at": 3, "only_even": True}


def gather(out, env_id=COUNT, actor=None, **settings):
    settings = {"episodes": 4, "seed": 100, "env_kwargs": HALF, "progress": False, **settings}
    return collect(env_id, actor or ExpertActor(), out=out, **settings)


class Stopping(ExpertActor):
    """An expert whose operator presses Ctrl-C in the middle of the episode with this seed."""

    def __init__(self, seed):
        self.seed = seed

    def begin(self, env, seed):
        act = super().begin(env, seed)

        def stopping(obs, info):
            if seed == self.seed and obs[0] > 4:
                raise KeyboardInterrupt
            return act(obs, info)

        return stopping


def test_collect_keeps_what_stepping_by_hand_gives(tmp_path):
    result = gather(tmp_path / "demos.zarr")
    env = gym.make(COUNT, **HALF)
    buffer = ReplayBuffer.open(tmp_path / "demos.zarr")
    assert buffer.keys() == [
        "action", "next_observation", "observation", "reward", "success", "terminated", "truncated",
    ]  # fmt: skip
    assert buffer.num_episodes == result.episodes == 4
    for index, seed in enumerate((100, 102, 104, 106)):  # only even seeds succeed
        obs, info = env.reset(seed=seed)
        expert = env.unwrapped.make_expert(seed)
        episode = buffer.get_episode(index)
        for step in range(10):
            action = expert(obs, info)
            np.testing.assert_array_equal(episode["observation"][step], obs.astype(np.float32))
            np.testing.assert_array_equal(episode["action"][step], action)
            obs, reward, terminated, truncated, info = env.step(action)
            np.testing.assert_array_equal(episode["next_observation"][step], obs.astype(np.float32))  # the last, too
            assert episode["reward"][step] == reward
            assert (episode["terminated"][step], episode["truncated"][step]) == (terminated, truncated)
            assert episode["success"][step] == (step >= 3)  # from the success on
        assert len(episode["reward"]) == 10
        assert truncated


def test_next_observations_are_kept_of_vectors_and_otherwise_where_asked(tmp_path, toy_policy):
    actor = PolicyActor(RecedingHorizonController(toy_policy()))
    settings = {"env_kwargs": {"obs_keys": ("pos", "image"), "length": 20}, "keep": "all", "episodes": 2}
    gather(tmp_path / "named.zarr", CHAOS, actor, **settings)
    assert not any(key.startswith("next_") for key in ReplayBuffer.open(tmp_path / "named.zarr").keys())  # noqa: SIM118
    gather(tmp_path / "asked.zarr", CHAOS, actor, **settings, next_obs=True)
    episode = ReplayBuffer.open(tmp_path / "asked.zarr").get_episode(1)
    for key in ("pos", "image"):
        np.testing.assert_array_equal(episode[f"next_{key}"][:-1], episode[key][1:])
        assert episode[f"next_{key}"].dtype == episode[key].dtype
        assert (episode[f"next_{key}"][-1] != episode[key][-1]).any()
    gather(tmp_path / "none.zarr", next_obs=False)
    assert "next_observation" not in ReplayBuffer.open(tmp_path / "none.zarr")
    with pytest.raises(ConfigError, match="next_obs must be auto, true or false, but got 'yes'"):
        gather(tmp_path / "a.zarr", next_obs="yes")


def test_cut_episode_holds_what_followed_its_last_step(tmp_path):
    gather(tmp_path / "cut.zarr", episodes=None, steps=7, keep="all")
    episode = ReplayBuffer.open(tmp_path / "cut.zarr").get_episode(0)
    assert len(episode["reward"]) == 7
    assert episode["truncated"][-1]
    assert episode["next_observation"][-1] == episode["observation"][-1] + 1


def test_collection_goes_on_as_it_was_begun_with_or_without_next_observations(tmp_path):
    gather(tmp_path / "a.zarr", episodes=2, next_obs=False)
    with ReplayBuffer.open(tmp_path / "a.zarr", mode="a") as buffer:  # as earlier versions left it
        record = buffer.attrs["provenance"]
        del record["next_obs"]
        buffer.update_attrs({"provenance": record})
    assert gather(tmp_path / "a.zarr", resume=True).episodes == 4
    assert "next_observation" not in ReplayBuffer.open(tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match="begun with next_obs False, but got True"):
        gather(tmp_path / "a.zarr", episodes=6, resume=True, next_obs=True)


def test_collect_records_where_the_data_come_from(tmp_path):
    result = gather(tmp_path / "demos.zarr")
    record = ReplayBuffer.open(tmp_path / "demos.zarr").attrs["provenance"]
    assert record["seeds"] == [100, 102, 104, 106]
    assert record["attempts"] == result.attempts == 7
    assert (record["env_id"], record["kwargs"], record["actor"]) == (COUNT, HALF, "expert")
    assert {"versions", "command", "renderer", "keep"} <= set(record)
    assert result.digest == ReplayBuffer.open(tmp_path / "demos.zarr").digest()


def test_collect_records_the_rate_of_an_environment_that_tells_it(tmp_path):
    for env_id, rate in ((COUNT, None), (CHAOS, 20)):
        kwargs = HALF if env_id == COUNT else {}
        gather(tmp_path / f"{rate}.zarr", env_id, RandomActor(), keep="all", env_kwargs=kwargs)
        assert ReplayBuffer.open(tmp_path / f"{rate}.zarr").attrs["provenance"]["control_hz"] == rate


def test_collect_keeps_every_observation_with_its_dtype(tmp_path, toy_policy):
    actor = PolicyActor(RecedingHorizonController(toy_policy()))
    settings = {"obs_keys": ("pos", "image"), "length": 20}
    gather(tmp_path / "a.zarr", CHAOS, actor, env_kwargs=settings, keep="all", episodes=2)
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    assert (buffer.shape("image"), buffer.dtype("image")) == ((8, 8, 3), np.uint8)
    assert (buffer.shape("pos"), buffer.dtype("pos")) == ((2,), np.float32)
    assert buffer.attrs["provenance"]["renderer"] == "toy"


def test_collect_of_a_policy_gives_the_episodes_evaluate_gives(tmp_path, toy_policy):
    controller = RecedingHorizonController(toy_policy(), batch_size=32)
    gather(tmp_path / "a.zarr", CHAOS, PolicyActor(controller), env_kwargs={}, keep="all")
    result = evaluate(controller, CHAOS, episodes=4, seed=100, num_envs=3, progress=False)
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    for index, each in enumerate(result.per_episode):
        rewards = buffer.get_episode(index, ["reward"])["reward"]
        assert len(rewards) == each.length
        assert rewards.max() == np.float32(each.max_reward)


def test_data_set_names_the_policy_by_its_run_and_not_the_machine(tmp_path, toy_policy):
    controller = RecedingHorizonController(toy_policy())
    controller.path = tmp_path / "my_run" / "policy.pt"
    controller.path.parent.mkdir()
    controller.path.write_bytes(b"abc")
    actor = PolicyActor(controller)
    assert actor.name == "my_run/policy.pt"
    assert actor.details["sha256"].startswith("ba7816bf")


def test_collect_is_the_same_every_time(tmp_path):
    assert gather(tmp_path / "a.zarr").digest == gather(tmp_path / "b.zarr").digest
    assert gather(tmp_path / "c.zarr", seed=200).digest != gather(tmp_path / "d.zarr").digest


@pytest.mark.parametrize("stopped_at", [100, 103, 104, 106])
def test_resumed_collection_equals_an_undisturbed_one(tmp_path, stopped_at):
    whole = gather(tmp_path / "whole.zarr")
    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path / "a.zarr", actor=Stopping(stopped_at))
    assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == (stopped_at - 99) // 2
    resumed = gather(tmp_path / "a.zarr", resume=True)
    assert (resumed.digest, resumed.attempts) == (whole.digest, whole.attempts)
    seeds = [ReplayBuffer.open(tmp_path / name).attrs["provenance"]["seeds"] for name in ("a.zarr", "whole.zarr")]
    assert seeds[0] == seeds[1]


def test_collection_killed_between_seed_and_episode_is_resumed(tmp_path, monkeypatch):
    whole = gather(tmp_path / "whole.zarr")
    monkeypatch.setattr(ReplayBuffer, "add_episodes", lambda self, episodes: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gather(tmp_path / "a.zarr")
    monkeypatch.undo()
    assert gather(tmp_path / "a.zarr", resume=True).digest == whole.digest
    assert ReplayBuffer.open(tmp_path / "a.zarr").attrs["provenance"]["seeds"] == [100, 102, 104, 106]


def test_resume_goes_on_to_a_larger_number(tmp_path):
    gather(tmp_path / "a.zarr", episodes=2)
    assert gather(tmp_path / "a.zarr", episodes=4, resume=True).digest == gather(tmp_path / "b.zarr").digest


def test_collect_never_writes_over_what_is_there(tmp_path):
    before = gather(tmp_path / "a.zarr").digest
    with pytest.raises(OutputExistsError, match="resume=true"):
        gather(tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match="begun with seed 100, but got 7"):
        gather(tmp_path / "a.zarr", seed=7, resume=True)
    ReplayBuffer.create(tmp_path / "other.zarr")
    with pytest.raises(ConfigError, match="not made by collecting"):
        gather(tmp_path / "other.zarr", resume=True)
    assert ReplayBuffer.open(tmp_path / "a.zarr").digest() == before


def test_resume_leaves_alone_what_another_process_collects(tmp_path):
    before = gather(tmp_path / "a.zarr", episodes=2).digest
    with ReplayBuffer.open(tmp_path / "a.zarr", mode="a"), pytest.raises(OutputExistsError, match="being written"):
        gather(tmp_path / "a.zarr", episodes=4, resume=True)
    assert ReplayBuffer.open(tmp_path / "a.zarr").digest() == before


def test_collect_into_a_zip_packs_it_at_the_end(tmp_path):
    result = gather(tmp_path / "demos.zarr.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["demos.zarr.zip"]
    with ReplayBuffer.open(tmp_path / "demos.zarr.zip") as buffer:
        assert buffer.digest() == result.digest == gather(tmp_path / "folder.zarr").digest
        assert len(buffer.attrs["provenance"]["seeds"]) == 4
    with pytest.raises(OutputExistsError, match="complete"):
        gather(tmp_path / "demos.zarr.zip", resume=True)


def test_collect_without_a_notion_of_success_asks_for_keep_all(tmp_path):
    with pytest.raises(ConfigError, match="use keep=all"):
        gather(tmp_path / "a.zarr", env_kwargs={})
    assert gather(tmp_path / "b.zarr", env_kwargs={}, keep="all").attempts == 4


def test_collect_gives_up_on_an_actor_that_hardly_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_PATIENCE", 1)
    with pytest.raises(DataError, match="only 2 of 4 attempts succeeded, expected 4"):
        gather(tmp_path / "a.zarr")
    assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"episodes": 0}, "episodes >= 1"), ({"seed": -1}, "seed >= 0"), ({"keep": "best"}, "'best'")],
)
def test_collect_refuses_settings_that_make_no_sense(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        gather(tmp_path / "a.zarr", **settings)
    assert not (tmp_path / "a.zarr").exists()


def test_environment_without_an_expert_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no make_expert\(seed\).*checkpoint=policy.pt"):
        gather(tmp_path / "a.zarr", CHAOS, env_kwargs={})


def test_observation_named_like_an_action_is_refused(tmp_path, monkeypatch, toys):
    wrapped = gym.make(CHAOS)
    wrapped.observation_space = gym.spaces.Dict({"action": gym.spaces.Box(0, 1, (1,))})
    monkeypatch.setattr(collect_module, "make_env", lambda *_, **__: wrapped)
    with pytest.raises(ConfigError, match="observes action"):
        gather(tmp_path / "a.zarr", CHAOS)
