"""Simulated delay: without any, timed episodes are lock-step's bit for bit; with some, plans are late, and it shows."""

import json
import math

import numpy as np
import pytest

from diffusion_policy.control.strategies import Chunking, Ensembling, make_strategy
from diffusion_policy.control.timed import TimedController
from diffusion_policy.errors import ConfigError
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.rollout.evaluate import evaluate
from diffusion_policy.rollout.timing import Smoothness, Timing

CHAOS, TROUBLE = "toys/Chaos-v0", "toys/Trouble-v0"


def run(policy, timing, env_id=CHAOS, **settings):
    return evaluate(policy, env_id, **{"episodes": 9, "seed": 100, "progress": False, "timing": timing, **settings})


def test_without_delay_chunking_is_lock_step_bit_for_bit(toy_policy):
    timed = run(toy_policy(), Timing(Chunking(4)), num_envs=3)
    assert timed.per_episode == run(toy_policy(), None, num_envs=3).per_episode
    assert timed.timing["starved_steps"] == 0


@pytest.mark.parametrize("timing", [Timing(Chunking(4), 2), Timing(Ensembling(2), 1, jitter_steps=3)])
def test_delayed_episodes_are_the_same_whatever_runs_beside_them(toy_policy, timing):
    alone = run(toy_policy(), timing, num_envs=1)
    for num_envs in (4, 9):
        beside = run(toy_policy(), timing, num_envs=num_envs)
        assert beside.per_episode == alone.per_episode
        assert beside.timing == alone.timing
    assert alone.per_episode != run(toy_policy(), Timing(Chunking(4))).per_episode


@pytest.mark.parametrize("timing", [Timing(Chunking(4), 2), Timing(Ensembling(2), 1, jitter_steps=3)])
def test_delayed_episodes_are_the_same_in_workers(toy_policy, timing):
    settings = {"num_envs": 4, "env_kwargs": {"length": 20}, "plugins": ["tests.rollout.toys"]}
    here, there = (run(toy_policy(), timing, workers=workers, **settings) for workers in (0, 2))
    assert there.per_episode == here.per_episode
    assert there.timing == here.timing


def test_delayed_episode_whose_worker_is_killed_runs_again_and_is_the_same(toy_policy, tmp_path, caplog):
    def filmed(env_id, **settings):
        film = VideoGrid(episodes=4, tile=32)
        kwargs = {"length": 20, "render_size": 50, **settings.pop("kwargs", {})}
        timing = Timing(Ensembling(2), 1, jitter_steps=3)
        result = run(toy_policy(), timing, env_id, film=film, num_envs=4, env_kwargs=kwargs, **settings)
        return result, np.stack(list(film.frames()))

    here, frames = filmed(CHAOS)
    kwargs = {"accident": "kill", "once": str(tmp_path / "happened")}
    there, frames_there = filmed(TROUBLE, kwargs=kwargs, workers=2, plugins=["tests.rollout.toys"])
    assert "it is replaced" in caplog.text
    assert there.per_episode == here.per_episode
    assert there.timing == here.timing
    np.testing.assert_array_equal(frames_there, frames)


def test_delay_is_one_of_each_plan_and_jitter_is_its_own(toy_policy):
    asked = []

    class Watched(Timing):
        def delay(self, chance):
            asked.append(super().delay(chance))
            return asked[-1]

    run(toy_policy(), Watched(Chunking(2), 1, jitter_steps=2), episodes=4)
    assert set(asked) == {1, 2, 3}
    asked.clear()
    run(toy_policy(), Watched(Chunking(2), 2), episodes=4)
    assert set(asked) == {2}


def test_what_a_plan_says_is_sent_at_its_time_however_late_it_arrives(toy_policy, monkeypatch):
    """A policy that numbers the steps of its prediction: what is sent tells which step was obeyed."""

    class Numbering(toy_policy):
        def predict(self, obs, noise):
            steps = np.arange(-1, 7, dtype=np.float32) / 10
            prediction = np.broadcast_to(steps[:, None], (len(noise), 8, 2)).copy()
            return ActionChunk(prediction[:, 1:5], prediction)

    sent = []
    kept = Smoothness.of.__func__
    monkeypatch.setattr(Smoothness, "of", classmethod(lambda cls, *given: (sent.append(given), kept(cls, *given))[1]))
    run(Numbering(), Timing(Chunking(3), 2), episodes=1)
    actions, joints, starved = sent[0]
    numbers = [round(float(action[0]) * 10) for action in actions]
    assert joints == [number for number in range(1, len(numbers)) if numbers[number] == 2 and numbers[number - 1] == 4]
    assert joints[:3] == [5, 8, 11]
    assert starved == []
    assert numbers[:11] == [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4]  # asked at 0, 3, 6, 9; there at 0, 5, 8, 11


def test_a_chunk_that_ends_before_the_next_arrives_starves(toy_policy):
    result = run(toy_policy(), Timing(Chunking(4), 5), episodes=2)
    assert result.timing["starved_steps"] > 0


def test_smoothness_of_known_actions():
    line = [np.array([0.5 * t, -t]) for t in range(10)]
    assert Smoothness.of(line, [5]) == Smoothness(0.0, 0.0, 0.0, 0)
    bent = [*line[:5], *(each + 3 for each in line[5:])]  # jumps by (3, 3) at step 5
    found = Smoothness.of(bent, [5])
    assert found.jump == pytest.approx(math.hypot(3, 3))
    assert found.drift == 0.0  # that a jump shows in the difference after it, too, is no drift
    assert found.jerk == pytest.approx(math.hypot(3, 3) * math.sqrt((1 + 4 + 1) / 7))
    assert Smoothness.of(bent, [5], [5]) == Smoothness(found.jerk, None, 0.0, 1)
    assert Smoothness.of(line[:3], []) == Smoothness(0.0, None, 0.0, 0)


@pytest.mark.parametrize(("latency", "every", "asked"), [(0, 3, [0, 3, 6, 9]), (2, 3, [0, 3, 6, 9]),
                                                         (1, 1, [0, 1, 2, 3, 4, 5]), (4, 1, [0, 1, 5, 9])])  # fmt: skip
def test_one_plan_at_a_time_and_the_next_as_soon_as_it_is_there(toy_policy, monkeypatch, latency, every, asked):
    ticks = []
    kept = TimedController.request

    def request(controller, time_s):
        ticks.append(int(time_s))
        return kept(controller, time_s)

    monkeypatch.setattr(TimedController, "request", request)
    run(toy_policy(), Timing(Chunking(every), latency), episodes=1)
    assert ticks[: len(asked)] == asked


def test_results_say_how_time_passed(toy_policy, tmp_path):
    result = run(toy_policy(), Timing(make_strategy("ensembling", toy_policy().horizons), 1, jitter_steps=1))
    result.to_json(tmp_path / "eval.json")
    said = json.loads((tmp_path / "eval.json").read_text())["timing"]
    assert said["strategy"] == {"name": "Ensembling", "every": 1, "m": 0.01}
    assert (said["latency_steps"], said["jitter_steps"]) == (1, 1)
    assert said["jerk"]["ci95"][0] <= said["jerk"]["mean"] <= said["jerk"]["ci95"][1]
    assert "timing" not in run(toy_policy(), None).to_dict()


def test_films_show_delayed_episodes_too(toy_policy, tmp_path):
    film = VideoGrid(2)
    run(toy_policy(), Timing(Chunking(4), 1), film=film)
    film.save(tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("smooth", {}, "expected one of chunking, ensembling, real_time"),
        ("chunking", {"every": 8}, r"every must be in \[1, 7\]"),
        ("real_time", {"every": 9}, r"every must be in \[1, 7\]"),
    ],
)
def test_strategies_that_cannot_work_are_refused(toy_policy, name, settings, says):
    with pytest.raises(ConfigError, match=says):
        make_strategy(name, toy_policy().horizons, **settings)
    with pytest.raises(ConfigError, match="latency_steps must be a whole number"):
        Timing(Chunking(4), -1)


def test_strategies_by_name_suit_the_policy(toy_policy):
    horizons = toy_policy().horizons  # 2, 4, 8: seven actions from now on
    assert [make_strategy("chunking", horizons, delay=delay).every for delay in (0, 3, 5, 9)] == [4, 4, 5, 7]
    assert make_strategy("real_time", horizons, delay=3).every == 4
    assert make_strategy("ensembling", horizons, delay=3).every == 1
