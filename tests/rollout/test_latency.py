"""What delay does to a policy: every strategy under every delay on the same seeds, as rows, JSON and a picture."""

import json

import numpy as np
import pytest

from diffusion_policy.control.strategies import Ensembling, RealTimeChunking
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.latency import HEAD, cases, check_guidance, draw, report, row, sweep

CHAOS = "toys/Chaos-v0"


def run(policy, compared):
    return list(sweep(RecedingHorizonController(policy), CHAOS, compared, episodes=3, seed=7, progress=False))


@pytest.fixture
def guided(toy_policy):
    class Guided(toy_policy):
        held = 0

        def predict_guided(self, obs, noise, known):
            type(self).held += 1
            free = self.predict(obs, noise).prediction
            weight = known.weight[..., None]
            prediction = weight * known.actions + (1 - weight) * free
            return ActionChunk(prediction[:, 1:5], prediction)

    return Guided


def test_every_strategy_meets_every_delay_on_the_same_seeds(guided):
    compared = cases(guided().horizons, ["chunking", "real_time"], [0, 2], jitter_steps=1)
    assert [case.name for case in compared] == ["chunking-0", "chunking-2", "real_time-0", "real_time-2"]
    assert compared[3].timing.strategy == RealTimeChunking(4, 3)  # expects the longest delay there can be
    done = run(guided(), compared)
    assert {tuple(each.seed for each in result.per_episode) for _, result in done} == {(7, 8, 9)}
    assert guided.held > 0


def test_chunks_that_are_held_to_the_running_one_jump_less(guided):
    class Constant(guided):
        """Chunks of one action each, so that speeds change at joints only."""

        def predict(self, obs, noise):
            self.batches.append(len(noise))
            prediction = np.repeat(np.tanh(noise.mean(axis=1))[:, None, :2], 8, axis=1).astype(np.float32)
            return ActionChunk(prediction[:, 1:5], prediction)

    compared = cases(guided().horizons, ["chunking", "real_time"], [2], every=2)
    found = {case.strategy: result.timing["jump"]["mean"] for case, result in run(Constant(), compared)}
    assert found["real_time"] < 0.7 * found["chunking"]


def test_guided_episodes_are_the_same_whatever_runs_beside_them(guided):
    compared = cases(guided().horizons, ["real_time"], [2])
    controller = RecedingHorizonController(guided())
    found = [
        next(sweep(controller, CHAOS, compared, episodes=5, seed=7, num_envs=num_envs, progress=False))[1].per_episode
        for num_envs in (1, 5)
    ]
    assert found[0] == found[1]


def test_rows_json_and_picture_tell_the_same(guided, tmp_path):
    found = run(guided(), cases(guided().horizons, ["chunking", "ensembling"], [0, 3], m=0.5))
    done = [(case, result.to_dict()) for case, result in found]
    assert isinstance(done[2][0].timing.strategy, Ensembling)
    rows = [row(case, result) for case, result in done]
    assert all(len(each) == len(HEAD) for each in rows)
    said = json.loads(json.dumps(report(done), default=str))
    assert [(each["name"], each["timing"]["latency_steps"]) for each in said["cases"]] == [
        ("chunking-0", 0), ("chunking-3", 3), ("ensembling-0", 0), ("ensembling-3", 3)]  # fmt: skip
    assert f"{said['cases'][0]['timing']['jerk']['mean']:.3g}" == rows[0][4]
    drawn = draw(done, tmp_path / "latency.png", "px")
    assert [axes.get_ylabel() for axes in drawn.axes] == [
        "reward", "share of episodes", "px / env step³", "px / env step²"]  # fmt: skip
    assert {axes.get_xlabel() for axes in drawn.axes} == {"delay, env steps"}
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_policies_that_cannot_be_guided_are_refused_before_anything_is_run(toy_policy, guided):
    policy = toy_policy()
    check_guidance(policy, cases(policy.horizons, ["chunking"], [1]))
    assert policy.batches == []
    with pytest.raises(ConfigError, match="cannot be guided"):
        check_guidance(policy, cases(policy.horizons, ["chunking", "real_time"], [1]))
    check_guidance(guided(), cases(policy.horizons, ["real_time"], [1]))


@pytest.mark.parametrize(
    ("strategies", "delays", "says"),
    [([], [1], "at least one strategy"), (["chunking"], [], "at least one"), (["fast"], [1], "expected one of"),
     (["chunking"], [-1], "latency_steps must be"), (["chunking"], ["x"], "latency_steps must be"),
     (["chunking"], [1, 1], "each may be named once")],
)  # fmt: skip
def test_cases_that_make_no_sense_are_refused(toy_policy, strategies, delays, says):
    with pytest.raises(ConfigError, match=says):
        cases(toy_policy().horizons, strategies, delays)
