"""One cell of a benchmark: train, judge, write down everything that a reader could ask."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.benchmark.results import FORMAT, differing
from diffusion_policy.benchmark.stopwatch import Stopwatch
from diffusion_policy.benchmark.suite import REPORT_SEED, VALIDATION_SEED, Cell, Judging, Suite
from diffusion_policy.errors import ConfigError, DiffusionPolicyError, MissingFileError
from diffusion_policy.policies.chunk import blank_windows
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.library import load_policy
from diffusion_policy.rollout.evaluate import EvalResult, evaluate
from diffusion_policy.rollout.provenance import commit, hardware, usable_cores
from diffusion_policy.rollout.statistics import percentiles
from diffusion_policy.settings import section
from diffusion_policy.training.assembly import check_settings
from diffusion_policy.training.metrics import read_metrics
from diffusion_policy.training.run import Run, train
from diffusion_policy.versions import installed_versions

Compose = Callable[[str, Sequence[str]], dict[str, Any]]
"""(command, its settings as words) -> its configuration; see `cli.compose`."""


def cell_file(out: Path, cell: Cell) -> Path:
    """Returns where a cell's results stand; the file is there when the cell is finished."""
    return out / "cells" / f"{cell.name}.json"


def run_cell(cell: Cell, suite: Suite, out: Path, dataset: str, compose: Compose, plugins: Sequence[str] = ()) -> bool:
    """Trains and judges a cell, or goes on where it was interrupted. Returns whether it is finished.

    Args:
        cell: which one.
        suite: what it belongs to.
        out: folder of the benchmark.
        dataset: path of the task's demonstrations.
        compose: makes configurations.
        plugins: modules that every process imports first.

    Raises:
        ConfigError: it was begun with other settings.
        DiffusionPolicyError: whatever training or evaluation raises.
    """
    folder = out / "runs" / cell.name
    watch = Stopwatch(out / "times" / f"{cell.name}.json")
    _check_words(out / "times" / f"{cell.name}.words.json", suite.words(cell), cell)
    with watch.running():
        run = _trained(cell, suite, out, dataset, compose, plugins)
    if not run.finished:
        return False
    device = str(run.policy.device)
    judged = {"last": _judge(folder / "policy.pt", suite.judging, device, plugins)}
    best = best_checkpoint(folder / "checkpoints")
    if "best" in suite.judging.protocols and best is not None:
        judged["best"] = _judge(best, suite.judging, device, plugins)
    figures = {
        "format": FORMAT,
        **asdict(cell),
        "words": suite.words(cell),
        "config": run.policy.plain_config(),
        "dataset": _origin(run.policy.info.dataset),
        "judging": asdict(suite.judging),
        "training": {**_training_figures(folder, watch), "grad_steps": run.grad_steps, "parameters": _size(run.policy)},
        "latency_ms": _latency(folder / "policy.pt", suite.judging.latency_calls, device),
        "device": device,
        "evaluations": judged,
        "versions": installed_versions(),
        "commit": commit(),
        "hardware": hardware(),
    }
    _write(cell_file(out, cell), figures)
    return True


def best_checkpoint(folder: Path) -> Path | None:
    """Returns the checkpoint with the best reward on validation seeds, the earliest of equals; None without any."""
    found = sorted(folder.glob("best_step*_reward*.pt"))
    return max(found, key=lambda file: float(file.stem.rpartition("reward")[2]), default=None)


def check_same(wanted: Any, stored: Any, what: str, cell: Cell) -> None:
    """Raises ConfigError where a cell that is there was made otherwise than is asked for now."""
    wanted = json.loads(json.dumps(wanted))
    if wanted != stored:
        raise ConfigError(
            f"{cell.name} is there with other settings: {differing(what, stored, wanted)}; take another out=, or "
            f"remove its files to run it again"
        )


def _check_words(file: Path, words: list[str], cell: Cell) -> None:
    if file.is_file():
        check_same(words, json.loads(file.read_text(encoding="utf-8")), "words", cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(words), encoding="utf-8")


def _trained(cell: Cell, suite: Suite, out: Path, dataset: str, compose: Compose, plugins: Sequence[str]) -> Run:
    folder = out / "runs" / cell.name
    if (folder / "config.yaml").is_file():
        return train({"resume": str(folder)})
    if folder.exists():  # killed before it began
        shutil.rmtree(folder)
    settings = cell_settings(cell, suite, compose)
    before = suite.before(cell)
    initial = {} if before is None else {"init": str(first_policy(out, before, cell))}
    return train({**settings, **initial, "dataset": dataset, "out": str(folder), "plugins": list(plugins)})


def first_policy(out: Path, before: Cell, cell: Cell) -> Path:
    """Returns the policy of which `cell` begins, that of the finished cell `before`.

    Raises:
        MissingFileError: it is not there.
    """
    file = out / "runs" / before.name / "policy.pt"
    if not (cell_file(out, before).is_file() and file.is_file()):
        raise MissingFileError(
            f"{cell.name} begins with the policy of {before.name}: expected that cell finished, and {file}; run both, "
            f"only=[{before.name},{cell.name}]; if the cell stands there without its policy, remove its .json before"
        )
    return file


def cell_settings(cell: Cell, suite: Suite, compose: Compose) -> dict[str, Any]:
    """Returns the training's configuration of a cell, without data and folder.

    Raises:
        ConfigError: a setting is unknown or does not fit, or the best checkpoint is wanted of a run whose length is not
            known; names the cell.
    """
    try:
        settings = _validated(compose("train", suite.words(cell)), suite.judging)
        check_settings(settings)
    except DiffusionPolicyError as error:
        raise ConfigError(f"suite cell {cell.name}: {error}") from error
    return settings


def _validated(settings: dict[str, Any], judging: Judging) -> dict[str, Any]:
    """Returns a training's settings with the rollouts that choose the best checkpoint, if the suite wants one."""
    training = dict(section(settings, "training"))
    if "best" not in judging.protocols:
        return settings
    if training.get("num_grad_steps") is None:
        raise ConfigError(
            "judging.protocols: best needs training.num_grad_steps, but the length is given in epochs; give it in "
            "steps, or leave best out"
        )
    every = max(1, int(training["num_grad_steps"]) // judging.validations)
    rollouts = {
        "rollout_every": every,
        "rollout_episodes": judging.validation_episodes,
        "rollout_seed": VALIDATION_SEED,
    }
    return {**settings, "training": {**training, **rollouts, "keep_best": max(1, int(training.get("keep_best", 1)))}}


def _judge(checkpoint: Path, judging: Judging, device: str, plugins: Sequence[str]) -> dict[str, Any]:
    controller = RecedingHorizonController.load(checkpoint, device=device, batch_size=judging.batch_size)
    info = load_policy(checkpoint).info
    pictures = any(field.is_picture for field in controller.obs_spec.values())
    result = evaluate(
        controller,
        str(info.env["id"]),
        episodes=judging.episodes,
        seed=REPORT_SEED,
        num_envs=judging.num_envs,
        env_kwargs=info.env.get("kwargs") or {},
        batch_size=judging.batch_size,
        workers=usable_cores() if pictures else 0,
        plugins=plugins,
    )
    return {"checkpoint": checkpoint.name, "grad_steps": info.training.get("grad_steps"), **_compact(result)}


def _compact(result: EvalResult) -> dict[str, Any]:
    """Returns an evaluation with a column for each figure of its episodes: a tenth of eval.json."""
    told = result.to_dict()
    rows = told.pop("per_episode")
    names = dict.fromkeys(name for row in rows for name in row)
    for name in ("versions", "hardware", "policy", "latency_ms"):
        told.pop(name)
    return {**told, "per_episode": {name: [row.get(name) for row in rows] for name in names}}


def _training_figures(folder: Path, watch: Stopwatch) -> dict[str, Any]:
    records = read_metrics(folder / "metrics.jsonl")
    rollouts = sum(record.get("seconds", 0.0) for record in records if record.get("kind") == "rollout")
    validation = _last(records, "validation")
    figures = {name: validation.get(name) for name in ("loss", "action_rmse", "train_action_rmse")}
    loss = _last(records, "train").get("loss")
    return {**watch.read(), "rollout_s": rollouts, "train_loss": loss, "validation": figures}


def _last(records: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((record for record in reversed(records) if record.get("kind") == kind), {})


def _latency(checkpoint: Path, calls: int, device: str) -> dict[str, float | None]:
    """Returns percentiles of predictions of one row."""
    policy = RecedingHorizonController.load(checkpoint, device=device, batch_size=1).policy
    obs = blank_windows(policy, 1)
    noise = np.random.default_rng(0).standard_normal((calls, 1, *policy.noise_shape), np.float32)
    times = []
    for each in noise:
        begin = time.perf_counter()
        policy.predict(obs, each)
        times.append(1000 * (time.perf_counter() - begin))
    return percentiles(times, (50, 95))


def _origin(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where demonstrations come from, without what names the machine that made them."""
    said = dataset.get("provenance") or {}
    told = {name: said[name] for name in ("env_id", "kwargs", "actor", "keep", "seed", "attempts") if name in said}
    return {"digest": dataset.get("digest"), "mirrored": dataset.get("mirrored"), "provenance": told}


def _size(policy: Any) -> int:
    return sum(each.numel() for each in policy.parameters())


def _write(file: Path, figures: Mapping[str, Any]) -> None:
    """Writes all of it or nothing; one line a section, so that a difference can be read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value, default=str)}" for name, value in figures.items())
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    os.replace(partial, file)  # noqa: PTH105
