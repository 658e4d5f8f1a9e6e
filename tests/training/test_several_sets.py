"""A run on several data sets: shares, the same as one merged set, exact resume, what does not fit is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.policies.library import load_policy
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.metrics import read_metrics
from diffusion_policy.training.run import train
from tests.training.mirrored_points import MirroredPoints
from tests.training.runs import assert_same_run

Make = Callable[..., dict[str, Any]]
Sets = list[Any]


def points(path: Path, episodes: int, shift: float, **more: Any) -> Path:
    """Points whose numbers tell of which set they are."""
    rng = np.random.default_rng(episodes)
    with ReplayBuffer.create(path, attrs={"provenance": more.pop("provenance", {})}) as buffer:
        for _ in range(episodes):
            pos = shift + rng.uniform(-1, 1, (20, more.get("size", 2)))
            buffer.add_episode({"pos": pos.astype(np.float32), "action": pos[:, :2].astype(np.float32)})
    return path


@pytest.fixture
def human(tmp_path: Path) -> Path:
    return points(tmp_path / "human.zarr", 6, shift=0.0)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return points(tmp_path / "mine.zarr", 3, shift=10.0)


@pytest.fixture
def weighted(human: Path, mine: Path) -> Sets:
    return [{"path": str(human), "weight": 3}, {"path": str(mine), "weight": 1}]


def test_batches_hold_the_weights_shares(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    loop = assemble({**make_config(tmp_path / "run"), "dataset": weighted}).loop
    for step in range(5):
        action = loop.dataset.batch(loop.order.batch(step)).action
        assert (action[:, 0, 0] > 5).sum() == 4  # of 16 rows: a quarter is of the second set


def test_sets_without_weights_train_as_one_that_holds_both(
    tmp_path: Path, make_config: Make, human: Path, mine: Path
) -> None:
    with ReplayBuffer.create(tmp_path / "both.zarr") as both:
        for path in (human, mine):
            with ReplayBuffer.open(path) as part:
                both.add_episodes(list(part.episodes()))
    for name, dataset in (("one", str(tmp_path / "both.zarr")), ("two", [str(human), str(mine)])):
        config = make_config(tmp_path / name, num_grad_steps=10, val_every=0)
        train({**config, "dataset": dataset, "data": {"val_ratio": 0.0}})
    one, two = (load_policy(tmp_path / name / "policy.pt").state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_normalisers_see_all_sets_alike_whatever_their_weights(
    tmp_path: Path, make_config: Make, weighted: Sets
) -> None:
    found = []
    for weight in (1, 20):
        sets = [weighted[0], {**weighted[1], "weight": weight}]
        config = {**make_config(tmp_path / f"run{weight}"), "normalization": {"obs": "gaussian"}}
        assembly = assemble({**config, "dataset": sets})
        seen = torch.cat([each.train.all_obs("pos") for each in assembly.data.sets])
        normal = assembly.loop.objective.model.obs_normalizers[0]
        torch.testing.assert_close(normal.normalize(seen).mean(0), torch.zeros(2), atol=1e-5, rtol=0)
        found.append(normal.scale.clone())
    assert torch.equal(*found)


def test_run_on_weighted_sets_resumes_to_the_same_weights(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    for name, steps in (("whole", 20), ("parts", 9)):
        config = make_config(tmp_path / name, num_grad_steps=steps, val_every=0, log_every=0)
        config["optim"]["lr_schedule"] = "constant"  # of 9 steps, cosine would be another
        train({**config, "dataset": weighted})
    train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 20}})
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_files_of_a_run_tell_each_set_with_its_digest_and_share(
    tmp_path: Path, make_config: Make, weighted: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = [{**each, "path": Path(each["path"]).name} for each in weighted]
    run = train({**make_config(tmp_path / "run", num_grad_steps=2, val_every=2), "dataset": relative})
    kept = yaml.safe_load((run.out / "config.yaml").read_text())["dataset"]
    assert [(each["path"], each["weight"]) for each in kept] == [(each["path"], each["weight"]) for each in weighted]
    told = load_policy(run.out / "policy.pt").info.dataset["sets"]
    assert {name: each["share"] for name, each in told.items()} == {"human": 0.75, "mine": 0.25}
    digests = {name: each["digest"] for name, each in told.items()}
    assert list(digests.values()) == [each["digest"] for each in kept]
    for each, digest in zip(weighted, digests.values(), strict=True):
        with ReplayBuffer.open(each["path"]) as buffer:
            assert buffer.digest(["pos", "action"]) == digest
    records = read_metrics(run.out / "metrics.jsonl")
    assert [(name, each["digest"]) for name, each in records[0]["sets"].items()] == list(digests.items())
    (validation,) = (record for record in records if record["kind"] == "validation")
    assert validation["loss"] == pytest.approx(0.75 * validation["loss/human"] + 0.25 * validation["loss/mine"])
    squares = [validation[f"train_action_rmse/{name}"] ** 2 for name in ("human", "mine")]
    assert validation["train_action_rmse"] ** 2 == pytest.approx(0.75 * squares[0] + 0.25 * squares[1])
    assert train(yaml.safe_load((run.out / "config.yaml").read_text()) | {"out": str(tmp_path / "again")}).finished


def test_each_set_has_its_own_held_out_and_chosen_episodes(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    config = {**make_config(tmp_path / "run"), "data": {"val_ratio": 0.34, "episodes": 2}, "dataset": weighted}
    sets = assemble(config).data.sets
    assert [len(each.episodes) for each in sets] == [2, 2]
    assert [len(np.unique(each.held_out.index.episode_ids)) for each in sets if each.held_out] == [2, 1]


def test_changed_set_is_refused_on_resume_by_name(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    train({**make_config(tmp_path / "run", num_grad_steps=2), "dataset": weighted})
    with ReplayBuffer.open(weighted[1]["path"], mode="a") as buffer:
        buffer.add_episode(buffer.get_episode(0))
    with pytest.raises(DataError, match=r"mine\.zarr has changed: dataset says digest .*restore it"):
        train({"resume": str(tmp_path / "run")})


def test_changed_weight_is_refused_on_resume_by_name(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    train({**make_config(tmp_path / "run", num_grad_steps=2), "dataset": weighted})
    file = tmp_path / "run" / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["dataset"][1]["weight"] = 2
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(DataError, match=r"data set mine has changed since .*, weight 2, then .*, weight 1\)"):
        train({"resume": str(tmp_path / "run")})


def test_mirror_images_are_of_each_set(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    gym.register("MirroredPoints-v0", MirroredPoints)
    try:
        config = make_config(tmp_path / "run")
        config["env"], config["data"]["mirror"] = {"id": "MirroredPoints-v0"}, True
        loop = assemble({**config, "dataset": weighted}).loop
    finally:
        del gym.registry["MirroredPoints-v0"]
    ids = np.concatenate([loop.order.batch(step) for step in range(loop.order.steps_per_epoch)])
    action = loop.dataset.batch(ids).action[:, 0, 0]
    far = action.abs() > 5
    assert abs(far.float().mean() - 0.25) < 1 / len(ids)
    assert 0.4 < (action[far] < 0).float().mean() < 0.6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([{"path": "{human}", "weight": 1}, "{mine}"], r"a weight to each set or to none .*mine\.zarr has none"),
        (["{human}", "{human}"], r"human\.zarr is named twice"),
        ([{"path": "{human}", "weight": 0}, {"path": "{mine}", "weight": 1}], r"dataset\[0\]\.weight must be above 0"),
        ([{"path": "{human}", "wieght": 1}], r"dataset\[0\]: unknown setting wieght, known: path, weight, digest"),
        (["{human}", 3], r"dataset\[1\]: expected a path, or \{path: \.\.\., weight: \.\.\.\}, but got 3"),
        ({"path": "{human}"}, r"dataset: expected a path or a list, but got"),
        ([], r"dataset: expected a zarr folder or \.zip, got nothing"),
        ([{"path": "{human}", "digest": "0123"}, "{mine}"], r"human\.zarr has changed: dataset says digest 0123"),
    ],
)
def test_settings_that_say_nothing_clear_are_refused(
    changed: Any, message: str, tmp_path: Path, make_config: Make, human: Path, mine: Path
) -> None:
    text = yaml.safe_dump(changed).replace("{human}", str(human)).replace("{mine}", str(mine))
    with pytest.raises((ConfigError, DataError), match=message):
        train({**make_config(tmp_path / "run"), "dataset": yaml.safe_load(text)})
    assert not (tmp_path / "run").exists()


def test_sets_that_do_not_fit_together_are_refused_with_both_names(
    tmp_path: Path, make_config: Make, human: Path
) -> None:
    def refused(other: Path, message: str) -> None:
        for sets in ([str(human), str(other)], [str(other), str(human)]):
            with pytest.raises(DataError, match=message):
                train({**make_config(tmp_path / "run"), "dataset": sets})

    wide = points(tmp_path / "wide.zarr", 2, 0.0, size=3)
    refused(wide, r"wide\.zarr: obs\.pos must have shape \(2,\).*human\.zarr has obs\.pos as 'pos'")
    with ReplayBuffer.create(tmp_path / "short.zarr") as buffer:
        buffer.add_episode({"pos": np.zeros((20, 2), np.float32)})
    refused(tmp_path / "short.zarr", r"short\.zarr: action needs data 'action'.*human\.zarr has action as 'action'")


def test_sets_of_different_rates_are_refused_and_one_that_tells_none_is_told_of(
    tmp_path: Path, make_config: Make, human: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ten, slow = (
        points(tmp_path / f"{name}.zarr", 3, 0.0, provenance={"control_hz": hz})
        for name, hz in (("ten", 10), ("slow", 5))
    )
    config = make_config(tmp_path / "run")
    with pytest.raises(DataError, match=r"slow\.zarr has 5 steps a second, but .*ten\.zarr 10: .*--resample 10"):
        assemble({**config, "dataset": [str(ten), str(slow)]})
    with caplog.at_level("INFO", logger="diffusion_policy"):
        assemble({**config, "dataset": [str(ten), str(human)]})
    assert "human.zarr does not tell its rate" in caplog.text


def test_units_of_one_set_do_not_hide_among_the_others(tmp_path: Path, make_config: Make, weighted: Sets) -> None:
    config = {**make_config(tmp_path / "run"), "action": {"shape": [2], "low": -1.0, "high": 1.0}}
    with pytest.raises(ConfigError, match=r"mine: action: 100\.0 % of 40 steps lie outside"):
        assemble({**config, "dataset": weighted})


def test_memory_goes_to_the_first_set_first(tmp_path: Path, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, seed in (("a", 0), ("b", 1)):
        rng = np.random.default_rng(seed)
        with ReplayBuffer.create(tmp_path / f"{name}.zarr") as buffer:
            images = rng.integers(0, 255, (20, 32, 32, 3), np.uint8)
            buffer.add_episode({"image": images, "action": rng.uniform(-1, 1, (20, 2)).astype(np.float32)})
    config = make_config(tmp_path / "run")
    config["obs"] = {"image": {"type": "rgb", "shape": [32, 32, 3]}}
    sets = [str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")]
    found = {}
    for limit in ("1GB", "100KB"):  # a set's pictures have 61440 bytes
        assembly = assemble({**config, "dataset": sets, "data": {"val_ratio": 0.0, "memory_limit": limit}})
        assert [each.resident_bytes for each in assembly.data.sets] == [61440, 61440 if limit == "1GB" else 0]
        batch = assembly.loop.dataset.batch(np.random.default_rng(0).permutation(len(assembly.loop.dataset)))
        found[limit] = batch.obs["image"]
    assert torch.equal(*found.values())


def test_same_file_names_are_numbered_and_same_contents_warned_of(
    tmp_path: Path, make_config: Make, caplog: pytest.LogCaptureFixture
) -> None:
    sets = [str(points(tmp_path / f"{folder}/demos.zarr", 2, 0.0)) for folder in ("a", "b")]
    data = assemble({**make_config(tmp_path / "run"), "dataset": sets}).data
    assert list(data.share_of) == ["demos", "demos-2"]
    assert "demos-2 holds the same as demos: its episodes count twice" in caplog.text
