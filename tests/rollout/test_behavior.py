"""How a task was done: which ways, which parts."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from diffusion_policy.rollout.behavior import behavior_summary, normalized_entropy, subgoal_summary
from diffusion_policy.rollout.episode import EpisodeResult
from diffusion_policy.rollout.evaluate import evaluate
from tests.rollout.toys import ToyPolicy


def episode(seed=0, success=True, **told):
    return EpisodeResult(seed, 1.0, 1.0, success, 5, True, False, **told)


def test_entropy_is_one_for_even_ways_and_zero_for_a_single_one():
    assert normalized_entropy([5, 5, 5, 5], 4) == pytest.approx(1.0)
    assert normalized_entropy([20, 0, 0, 0], 4) == 0.0
    assert normalized_entropy([3, 1], 4) == pytest.approx((0.75 * math.log(4 / 3) + 0.25 * math.log(4)) / math.log(4))
    assert normalized_entropy([0, 0], 2) == 0.0


def test_behavior_counts_the_ways_of_successful_episodes_only():
    episodes = [
        episode(behavior="L"),
        episode(behavior="L"),
        episode(behavior="R"),
        episode(success=False, behavior="R"),
    ]
    assert behavior_summary(episodes, ("L", "R", "M"))["counts"] == {"L": 2, "R": 1, "M": 0}
    assert behavior_summary(episodes, ()) == {}


def test_behavior_says_what_an_even_policy_would_have_in_so_few_episodes():
    few = behavior_summary([episode(behavior="a")] * 8, [str(n) for n in range(16)])["entropy_if_uniform"]
    many = behavior_summary([episode(behavior="a")] * 1000, [str(n) for n in range(16)])["entropy_if_uniform"]
    assert few < 0.75
    assert many == pytest.approx(1 - 15 / (2 * 1000 * math.log(16)), abs=1e-3)  # Miller and Madow 1955


def test_subgoals_have_a_rate_each_and_rates_of_so_many():
    episodes = [episode(subgoals={"red": True, "blue": done}) for done in (True, False, False, False)]
    summary = subgoal_summary(episodes)
    assert (summary["each"]["red"]["mean"], summary["each"]["blue"]["mean"]) == (1.0, 0.25)
    assert (summary["at_least"]["1"]["mean"], summary["at_least"]["2"]["mean"]) == (1.0, 0.25)
    assert subgoal_summary([episode()]) == {}


class WaysEnv(gym.Env):
    """Goes left or right by its seed; reaches part "a" at its first step only."""

    behaviors = ("left", "right")

    def __init__(self):
        self.observation_space = spaces.Box(0, 1, (2,))
        self.action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.way, self.steps = self.behaviors[seed % 2], 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        ended = self.steps == 6
        told = {"behavior": self.way if ended else "", "subgoals": {"a": self.steps == 1, "b": False}}
        return np.zeros(2, np.float32), 0.5, ended, False, {"is_success": ended, **told}


@pytest.fixture
def ways():
    gym.register("toys/Ways-v0", entry_point=WaysEnv)
    yield "toys/Ways-v0"
    del gym.registry["toys/Ways-v0"]


def test_evaluation_tells_ways_and_parts_that_were_reached_at_any_step(ways, tmp_path):
    result = evaluate(ToyPolicy(), ways, episodes=6, seed=0, num_envs=4, progress=False)
    assert result.behavior["counts"] == {"left": 3, "right": 3}
    assert result.behavior["entropy"] == pytest.approx(1.0)
    result.to_json(tmp_path / "eval.json")
    said = json.loads((tmp_path / "eval.json").read_text())
    assert said["subgoals"]["each"]["a"]["mean"] == 1.0
    assert said["subgoals"]["each"]["b"]["mean"] == 0.0
    first = said["per_episode"][0]
    assert (first["behavior"], first["subgoal_a"], first["subgoal_b"]) == ("left", True, False)
    assert "2 of 2 behaviors, entropy 1.00" in result.summary()
    result.to_csv(tmp_path / "episodes.csv")
    assert "subgoal_a" in (tmp_path / "episodes.csv").read_text().splitlines()[0]


def test_evaluation_of_an_environment_with_one_way_says_nothing_of_ways(toy_policy, toys):
    result = evaluate(toy_policy(), "toys/Chaos-v0", episodes=2, seed=100, progress=False)
    assert result.behavior == result.subgoals == {}
    assert "behavior" not in result.to_dict()
