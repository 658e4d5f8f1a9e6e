"""What dp-eval decides by itself: whether workers pay, where results go, whether there can be a film."""

import json
import re
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest

from diffusion_policy.cli.eval import _controller, _film, _folder, _free_folder, _workers
from diffusion_policy.cli.eval_latency import evaluate_cases, is_asked, planned
from diffusion_policy.config import ObsField
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.engines.description import Description
from tests.policies.test_selection import plain_policy, selecting
from tests.rollout.toys import ToyPolicy

PICTURE = {"image": ObsField("rgb", (96, 96, 3)), "agent_pos": ObsField("low_dim", (2,))}
NUMBERS = {"agent_pos": ObsField("low_dim", (2,))}


@pytest.mark.parametrize(
    ("setting", "obs_spec", "num_envs", "cores", "expected"),
    [
        ("auto", PICTURE, 25, 8, 8),
        ("auto", PICTURE, 1, 8, 0),
        ("auto", PICTURE, 25, 1, 0),
        ("auto", NUMBERS, 25, 8, 0),
        (3, NUMBERS, 25, 8, 3),
        (0, PICTURE, 25, 8, 0),
    ],
)
def test_workers_are_as_many_as_cores_only_where_pictures_are_drawn(
    setting, obs_spec, num_envs, cores, expected, monkeypatch
):
    monkeypatch.setattr("diffusion_policy.rollout.provenance.usable_cores", lambda: cores)
    assert _workers({"workers": setting, "num_envs": num_envs}, obs_spec) == expected


@pytest.mark.parametrize("setting", [-1, "many", 1.5, True, None])
def test_workers_of_another_kind_are_refused(setting):
    with pytest.raises(ConfigError, match="workers must be a whole number, 0 or more"):
        _workers({"workers": setting, "num_envs": 4}, PICTURE)


def test_candidates_are_as_many_as_asked_for_or_as_trained(tmp_path):
    config = {"device": "cpu", "precision": None, "sampler": {}, "num_candidates": None}
    selecting(count=6).save(tmp_path / "policy.pt")
    for asked, judged in ((None, 6), (3, 3)):
        controller = _controller({**config, "num_candidates": asked}, tmp_path / "policy.pt")
        assert controller.policy.noise_shape[0] == judged
        assert controller.act({"pos": np.zeros(3, np.float32)}).shape == (2,)
    with pytest.raises(ConfigError, match="num_candidates must be a whole number, 1 or more"):
        _controller({**config, "num_candidates": 2.5}, tmp_path / "policy.pt")


def test_policies_tell_how_they_were_asked_to_sample(tmp_path):
    config = {"device": "cpu", "precision": None, "sampler": {"num_inference_steps": 2}, "num_candidates": None}
    plain_policy().save(tmp_path / "plain.pt")
    plain = _controller(config, tmp_path / "plain.pt").policy
    assert plain.sampling["sampler"]["num_inference_steps"] == 2
    assert Description.from_json(plain.description.to_json(), "it").sampling == plain.sampling
    selecting(count=6).save(tmp_path / "policy.pt")
    selects = _controller({**config, "num_candidates": 3}, tmp_path / "policy.pt").policy
    assert selects.sampling["sampler"]["num_inference_steps"] == 2
    assert selects.sampling["selector"] == {"num_candidates": 3, "temperature": 0.0}


def test_candidates_of_policies_that_select_nothing_are_refused(tmp_path):
    config = {"device": "cpu", "precision": None, "sampler": {}, "num_candidates": 3}
    plain_policy().save(tmp_path / "policy.pt")
    with pytest.raises(ConfigError, match="no critic that selects among samples; leave it out"):
        _controller(config, tmp_path / "policy.pt")
    with pytest.raises(ConfigError, match=r"policy.onnx is exported and selects nothing"):
        _controller(config, tmp_path / "policy.onnx")


def test_results_go_to_the_next_free_folder_when_none_is_named(tmp_path):
    assert _free_folder(tmp_path).name == "eval"
    (tmp_path / "eval").mkdir()
    assert _free_folder(tmp_path).name == "eval"  # empty: nothing is lost
    for name in ("eval", "eval-2"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "eval.json").touch()
    assert _free_folder(tmp_path).name == "eval-3"


def test_environment_that_draws_no_frames_is_evaluated_without_a_film(capsys):
    class Blind(gym.Env):
        metadata: ClassVar[dict] = {"render_modes": ["human"]}

    gym.register("Blind-v0", Blind)
    try:
        assert _film({"overlay": False}, 4, None, "Blind-v0", {}) is None
        assert "no video: Blind-v0 does not offer render_mode rgb_array" in capsys.readouterr().err
    finally:
        del gym.registry["Blind-v0"]
    assert _film({"overlay": False}, 0, None, "Blind-v0", {}) is None
    assert _film({"overlay": False}, 4, None, "diffusion_policy_envs:PushT-v0", {}).episodes == 4


def test_overlay_without_a_film_is_refused():
    with pytest.raises(ConfigError, match="overlay=true draws on a film, but film=0"):
        _film({"overlay": True}, 0, None, "Blind-v0", {})


LOCK_STEP = {
    "latency_steps": None, "jitter_steps": 0, "strategy": None, "replan_every": None, "ensemble_m": 0.01,
    "overlay": False, "resume": False,
}  # fmt: skip


def test_time_passes_only_where_it_is_asked_for():
    assert not is_asked(LOCK_STEP)
    assert is_asked({**LOCK_STEP, "latency_steps": 0})
    assert is_asked({**LOCK_STEP, "strategy": "ensembling"})
    with pytest.raises(ConfigError, match="jitter_steps: nothing is late in lock-step"):
        is_asked({**LOCK_STEP, "jitter_steps": 2})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "fast"}, "expected one of chunking, ensembling, real_time"),
        ({"latency_steps": 1.5}, "latency_steps must be a whole number"),
        ({"latency_steps": 1, "replan_every": "often"}, "replan_every must be a whole number"),
        ({"latency_steps": 1, "replan_every": 99}, "every must be in"),
        ({"strategy": "ensembling", "ensemble_m": "much"}, "ensemble_m must be a number"),
        ({"latency_steps": 1, "overlay": True}, "lock-step control would sample"),
    ],
)
def test_settings_of_delay_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        planned({**LOCK_STEP, **settings}, RecedingHorizonController(ToyPolicy()))


def test_cases_leave_a_table_a_picture_and_a_folder_each(tmp_path, capsys):
    controller = RecedingHorizonController(ToyPolicy())
    compared = planned({**LOCK_STEP, "latency_steps": [0, 2]}, controller)
    settings = {"episodes": 2, "seed": 3, "progress": False}
    assert evaluate_cases(compared, controller, "toys/Chaos-v0", settings, tmp_path) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"latency.json", "latency.png", "chunking-0", "chunking-2"}
    assert {file.name for file in (tmp_path / "chunking-2").iterdir()} == {"eval.json", "episodes.csv"}
    assert "chunking" in capsys.readouterr().out


def sweep_of(tmp_path, delays, **settings):
    controller = RecedingHorizonController(ToyPolicy())
    compared = planned({**LOCK_STEP, "latency_steps": delays}, controller)
    asked = {"episodes": 2, "seed": 3, "progress": False, **settings}
    return evaluate_cases(compared, controller, "toys/Chaos-v0", asked, tmp_path), controller.policy


def test_a_comparison_that_goes_on_is_the_one_that_was_never_interrupted(tmp_path, capsys):
    sweep_of(tmp_path / "at_once", [0, 2, 1])
    sweep_of(tmp_path / "twice", [1])
    untouched = (tmp_path / "twice" / "chunking-1" / "eval.json").stat().st_mtime_ns
    capsys.readouterr()
    assert sweep_of(tmp_path / "twice", [0, 2, 1])[0] == 0
    assert "1 of 3 cases are there already" in capsys.readouterr().err
    assert (tmp_path / "twice" / "chunking-1" / "eval.json").stat().st_mtime_ns == untouched
    found = [json.loads((tmp_path / name / "latency.json").read_text())["cases"] for name in ("at_once", "twice")]
    for case in (*found[0], *found[1]):
        del case["latency_ms"]
    assert found[0] == found[1]
    _, policy = sweep_of(tmp_path / "twice", [0, 2, 1])
    assert policy.batches == []  # nothing was left to do


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seed": 4}, "was made with seed 3, but got 4"),
        ({"episodes": 3}, "was made with requested 2, but got 3"),
        ({"env_kwargs": {"length": 50}}, "was made with env_kwargs {}, but got {'length': 50}"),
        ({"batch_size": 1}, "was made with batch_size"),
    ],
)
def test_a_comparison_of_other_settings_is_not_gone_on_with(tmp_path, settings, says):
    sweep_of(tmp_path, [1])
    with pytest.raises(ConfigError, match=re.escape(says)):
        sweep_of(tmp_path, [1, 2], **settings)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"timing": {}, "latency_ms": 3, "policy": {}}'])
def test_a_damaged_case_is_named(tmp_path, content):
    sweep_of(tmp_path, [1])
    file = tmp_path / "chunking-1" / "eval.json"
    file.write_text(content)
    with pytest.raises(DataError, match=re.escape(f"{file} is damaged")):
        sweep_of(tmp_path, [1])


def test_only_a_comparison_of_delays_in_a_named_folder_can_be_gone_on_with(tmp_path):
    with pytest.raises(ConfigError, match="resume=true goes on with a comparison of delays"):
        _folder({**LOCK_STEP, "resume": True, "out": str(tmp_path)}, tmp_path / "policy.pt")
    with pytest.raises(ConfigError, match="give out=FOLDER"):
        _folder({**LOCK_STEP, "latency_steps": 1, "resume": True, "out": None}, tmp_path / "policy.pt")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "latency.json").touch()
    with pytest.raises(OutputExistsError, match="or go on with resume=true"):
        _folder({**LOCK_STEP, "latency_steps": 1, "out": str(tmp_path / "old")}, tmp_path / "policy.pt")


def test_cases_that_are_there_and_not_asked_for_are_not_dropped_from_the_table(tmp_path):
    sweep_of(tmp_path, [0, 1])
    with pytest.raises(ConfigError, match="holds chunking-0, chunking-1, too; name all delays"):
        sweep_of(tmp_path, [2])
    assert sweep_of(tmp_path, [0, 1, 2])[0] == 0
