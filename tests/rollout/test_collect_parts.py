"""Data sets of several actors, measured in steps: each part is what its actor alone would have given."""

import re
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.rollout import parts
from diffusion_policy.rollout.actors import ExpertActor, NoisyActor, RandomActor
from diffusion_policy.rollout.collect import collect
from diffusion_policy.rollout.worth import part_worths

COUNT, CHAOS = "toys/Count-v0", "toys/Chaos-v0"


@pytest.fixture(autouse=True)
def _toys(toys) -> None:
    pass


def gather(out: Path, actors, env_id=CHAOS, **settings):
    settings = {"seed": 100, "keep": "all", "progress": False, **settings}
    return collect(env_id, actors, out=out, **settings)


class Stopping(RandomActor):
    """Chance, until the operator presses Ctrl-C in the middle of the episode with this seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def begin(self, env, seed):
        act, steps = super().begin(env, seed), iter(range(10**6))

        def stopping(obs, info):
            if seed == self.seed and next(steps) == 7:
                raise KeyboardInterrupt
            return act(obs, info)

        return stopping


def test_steps_end_each_part_exactly_with_a_truncation(tmp_path: Path) -> None:
    result = gather(tmp_path / "a.zarr", [RandomActor(), NoisyActor(RandomActor(), 0.5)], steps=200)
    whole = ReplayBuffer.open(gather(tmp_path / "whole.zarr", RandomActor(), episodes=6).out)
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    assert [part.steps for part in result.parts] == [200, 200]
    assert buffer.num_steps == 400
    cut = result.parts[0].episodes - 1
    assert 200 in buffer.episode_ends
    for i in range(cut):  # Chaos terminates
        assert buffer.get_episode(i)["terminated"].nonzero()[0].tolist() == [len(buffer.get_episode(i)["action"]) - 1]
    for i in (cut, buffer.num_episodes - 1):
        last = buffer.get_episode(i)
        assert not last["terminated"].any()
        assert last["truncated"].nonzero()[0].tolist() == [len(last["action"]) - 1]
    for key in ("pos", "action", "reward"):
        np.testing.assert_array_equal(buffer.read(key, 0, 200), whole.read(key, 0, 200))


def test_an_episode_that_ends_with_the_part_is_not_cut(tmp_path: Path) -> None:
    result = gather(tmp_path / "a.zarr", ExpertActor(), COUNT, steps=30)
    assert (result.episodes, result.parts[0].cut, result.parts[0].mean_return) == (3, False, 45.0)
    shorter = gather(tmp_path / "b.zarr", ExpertActor(), COUNT, steps=29)
    assert (shorter.episodes, shorter.parts[0].cut, shorter.parts[0].mean_return) == (3, True, 45.0)
    assert gather(tmp_path / "c.zarr", ExpertActor(), COUNT, steps=4).parts[0].mean_return is None


def test_parts_follow_one_another_with_their_seeds(tmp_path: Path) -> None:
    both = gather(tmp_path / "both.zarr", [RandomActor(), NoisyActor(RandomActor(), 0.5)], episodes=3)
    alone = gather(tmp_path / "alone.zarr", NoisyActor(RandomActor(), 0.5), episodes=3, seed=103)
    joined, single = ReplayBuffer.open(both.out), ReplayBuffer.open(alone.out)
    for i in range(3):
        for key, values in single.get_episode(i).items():
            np.testing.assert_array_equal(joined.get_episode(3 + i)[key], values)
    record = joined.attrs["provenance"]
    assert record["seeds"] == [100, 101, 102, 103, 104, 105]
    first, second = record["parts"]
    assert (first["actor"], first["first_seed"], first["last_seed"], first["episodes"]) == ("random", 100, 102, 3)
    assert (second["noise"], second["first_seed"], second["last_seed"], second["episodes"]) == (0.5, 103, 105, 3)
    returns = [single.get_episode(i)["reward"].astype(np.float64).sum() for i in range(3)]
    assert second["mean_return"] == both.parts[1].mean_return == pytest.approx(np.mean(returns), rel=1e-12)
    assert record["action_bounds"] == [[-1, -1], [1, 1]]


@pytest.mark.parametrize("together", [True, False], ids=["written together", "one by one"])
@pytest.mark.parametrize("stopped_at", range(100, 111))
@pytest.mark.parametrize("amount", [{"steps": 200}, {"episodes": 4}], ids=["steps", "episodes"])
def test_resumed_parts_equal_undisturbed_ones(tmp_path, amount, stopped_at, together, monkeypatch) -> None:
    if not together:
        monkeypatch.setattr(parts, "_WRITE_BYTES", 0)
    whole = gather(tmp_path / "whole.zarr", [RandomActor(), NoisyActor(RandomActor(), 0.5)], **amount)
    stopping = [Stopping(stopped_at), NoisyActor(Stopping(stopped_at), 0.5)]
    if stopped_at < 100 + whole.episodes:
        with pytest.raises(KeyboardInterrupt):
            gather(tmp_path / "a.zarr", stopping, **amount)
        assert ReplayBuffer.open(tmp_path / "a.zarr").num_episodes == stopped_at - 100
    resumed = gather(tmp_path / "a.zarr", [RandomActor(), NoisyActor(RandomActor(), 0.5)], resume=True, **amount)
    assert (resumed.digest, resumed.attempts, resumed.parts) == (whole.digest, whole.attempts, whole.parts)
    records = [ReplayBuffer.open(tmp_path / name).attrs["provenance"] for name in ("a.zarr", "whole.zarr")]
    assert records[0] == records[1]


def test_an_interrupted_collection_tells_what_its_parts_are_worth_so_far(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path / "a.zarr", [RandomActor(), Stopping(105)], episodes=3)
    buffer = ReplayBuffer.open(tmp_path / "a.zarr")
    told = [part["mean_return"] for part in buffer.attrs["provenance"]["parts"]]
    assert told == [each.mean_return for each in part_worths(buffer)]
    assert len(told) == 2


def test_parts_killed_between_seeds_and_episodes_are_resumed(tmp_path: Path, monkeypatch) -> None:
    actors = [RandomActor(), NoisyActor(RandomActor(), 0.5)]
    whole = gather(tmp_path / "whole.zarr", actors, steps=200)
    monkeypatch.setattr(parts, "_WRITE_BYTES", 0)
    add, left = ReplayBuffer.add_episodes, iter([True] * (whole.parts[0].episodes - 1))
    monkeypatch.setattr(ReplayBuffer, "add_episodes", lambda self, each: add(self, each) if next(left, None) else 1 / 0)
    with pytest.raises(ZeroDivisionError):  # at the cut episode, after its note
        gather(tmp_path / "a.zarr", actors, steps=200)
    monkeypatch.undo()
    assert ReplayBuffer.open(tmp_path / "a.zarr").attrs["provenance"]["parts"][0]["cut"]
    resumed = gather(tmp_path / "a.zarr", actors, steps=200, resume=True)
    assert (resumed.digest, resumed.parts) == (whole.digest, whole.parts)


def test_success_counts_before_an_episode_is_cut(tmp_path: Path) -> None:
    half = {"succeeds_at": 8, "only_even": True}
    result = gather(tmp_path / "a.zarr", ExpertActor(), COUNT, steps=15, keep="success", env_kwargs=half)
    assert ReplayBuffer.open(tmp_path / "a.zarr").attrs["provenance"]["seeds"] == [100, 102]
    assert (result.attempts, ReplayBuffer.open(tmp_path / "a.zarr").episode_ends.tolist()) == (3, [10, 15])


def test_keep_auto_asks_the_first_episode(tmp_path: Path) -> None:
    told = gather(tmp_path / "a.zarr", ExpertActor(), COUNT, episodes=2, keep="auto", env_kwargs={"succeeds_at": 3})
    half = {"succeeds_at": 3, "only_even": True}
    odd = gather(tmp_path / "b.zarr", ExpertActor(), COUNT, episodes=2, keep="auto", env_kwargs=half, seed=101)
    silent = gather(tmp_path / "c.zarr", ExpertActor(), COUNT, episodes=2, keep="auto")
    assert (told.keep, odd.keep, silent.keep) == ("success", "success", "all")
    assert odd.attempts == 4
    assert ReplayBuffer.open(tmp_path / "c.zarr").attrs["provenance"]["keep"] == "all"
    again = gather(tmp_path / "c.zarr", ExpertActor(), COUNT, episodes=3, keep="auto", resume=True)
    assert (again.keep, again.episodes) == ("all", 3)


def test_hopeless_actor_is_given_up_with_steps_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only 0 of 20 attempts succeeded, expected 100 steps"):
        gather(tmp_path / "a.zarr", ExpertActor(), COUNT, steps=100, keep="success", env_kwargs={"succeeds_at": 99})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 300}, "begun with an amount of {'steps': 200}, but got {'steps': 300}"),
        ({"episodes": 9}, "begun with an amount of {'steps': 200}, but got {'episodes': 9}"),
        ({"steps": 200, "actors": [RandomActor()]}, "begun with actor 'random + random', but got 'random'"),
        ({"steps": 200, "actors": [RandomActor(), NoisyActor(RandomActor(), 1.0)]}, "'noise': 1.0"),
    ],
)
def test_parts_are_resumed_with_their_own_settings_only(tmp_path: Path, settings, message) -> None:
    actors = [RandomActor(), NoisyActor(RandomActor(), 0.5)]
    before = gather(tmp_path / "a.zarr", actors, steps=200).digest
    with pytest.raises(ConfigError, match=re.escape(message)):
        gather(tmp_path / "a.zarr", **{"actors": actors, "resume": True, **settings})
    assert ReplayBuffer.open(tmp_path / "a.zarr").digest() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({}, "either episodes or steps, but got None and None"),
        ({"steps": 3, "episodes": 3}, "either episodes or steps, but got 3 and 3"),
        ({"steps": 3, "actors": []}, "one or more actors"),
    ],
)
def test_amounts_that_make_no_sense_are_refused(tmp_path: Path, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        gather(tmp_path / "a.zarr", **{"actors": RandomActor(), **settings})
    assert list(tmp_path.iterdir()) == []


def test_actor_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="continuous actions with bounds"):
        gather(tmp_path / "a.zarr", RandomActor(), "CartPole-v1", steps=10)
    assert list(tmp_path.iterdir()) == []


def test_success_is_told_by_step_and_counted_by_part(tmp_path: Path) -> None:
    kwargs = {"env_kwargs": {"succeeds_at": 4, "only_even": True}, "episodes": 4}
    result = gather(tmp_path / "a.zarr", [ExpertActor(), ExpertActor()], COUNT, **kwargs)
    buffer = ReplayBuffer.open(result.out)
    assert buffer.get_episode(0)["success"].tolist() == [False] * 4 + [True] * 6  # it had succeeded by then
    assert not buffer.get_episode(1)["success"].any()
    assert [part.success_rate for part in result.parts] == [0.5, 0.5]
    assert [worth.success_rate for worth in part_worths(buffer)] == [0.5, 0.5]


def test_an_environment_that_does_not_tell_success_leaves_no_word_of_it(tmp_path: Path) -> None:
    result = gather(tmp_path / "a.zarr", RandomActor(), env_kwargs={"says": None}, episodes=2)
    assert "success" not in ReplayBuffer.open(result.out)
    assert result.parts[0].success_rate is None


@pytest.mark.parametrize("seed", [100, 101], ids=["first succeeds", "first fails"])
def test_an_environment_that_tells_success_only_where_there_is_one_gives_one_kind_of_episode(
    tmp_path: Path, seed: int
) -> None:
    kwargs = {"env_kwargs": {"succeeds_at": 4, "only_even": True}, "episodes": 3, "seed": seed}
    buffer = ReplayBuffer.open(gather(tmp_path / "a.zarr", ExpertActor(), "toys/Shy-v0", **kwargs).out)
    if seed == 101:  # the first episode decides for all
        assert "success" not in buffer
    else:
        assert [buffer.get_episode(i)["success"].any() for i in range(3)] == [True, False, True]
