"""How good a model of transitions is: report.html, report.png and report.json, beside simpler models.

SynthER's samples, Gaussian noise on real rows as near to them as SynthER's, a Gaussian and a variational autoencoder:
marginals, correlations, distances to real rows, terminals, rewards, and where a simulator can tell the error of the
dynamics, and whether terminals are where its rule ends the task. Letters: N rows, D columns.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_policy.augment.augmenter import TransitionModel
from diffusion_policy.augment.baselines import GaussianAugmenter, NoiseAugmenter, VaeAugmenter
from diffusion_policy.augment.diagnostics import RealRows, fidelity, noise_as_near
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.errors import ConfigError, StorageError
from diffusion_policy.pages import rendered
from diffusion_policy.rollout.provenance import commit, hardware
from diffusion_policy.settings import plain
from diffusion_policy.training.augmenting.dynamics import (
    SIMULATED,
    DynamicsErrors,
    dynamics_errors,
    open_simulator,
    scales,
)
from diffusion_policy.training.augmenting.fitting import FitConfig, InMemory
from diffusion_policy.training.augmenting.plots import Judged, draw_report
from diffusion_policy.training.augmenting.real_data import RealData
from diffusion_policy.training.optim import OptimConfig
from diffusion_policy.versions import installed_versions

logger = logging.getLogger(__name__)

_VAE_STEPS = 20_000  # at most: it is small
_VAE_LR = 1e-3


def write_report(
    name: str,
    synthetic: Transitions,
    real: RealData,
    fit: FitConfig,
    out: Path,
    about: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Path:
    """Measures samples of a model and of simpler ones, and writes the report; returns report.html.

    Args:
        name: of the model.
        synthetic: its samples.
        real: what they are compared with.
        fit: how the autoencoder is trained: batch, seed and device.
        out: the folder.
        about: what to tell of the model, plain values.
        notes: what a reader must know first, one sentence each.
    """
    table = real.table
    others = _others(synthetic, table, real.bounds, fit)
    tables = {name: synthetic, **{each: drawn for each, drawn in others.items() if each != name}}
    ruler = GaussianAugmenter(table.columns, real.bounds)
    ruler.fit(table)
    rows = RealRows(ruler, table)
    missing, errors, floor = _dynamics(tables, table, real.provenance)
    judged = [Judged(each, drawn, fidelity(table, drawn, rows), errors.get(each)) for each, drawn in tables.items()]
    content = {
        "notes": list(notes),
        "models": {each.name: _figures(each) for each in judged},
        "outcome": table.columns.outcome,
        "real": {**real.told(), "nearest": rows.apart, **({} if floor is None else _terminals(floor))},
        "dynamics": missing or "by re-simulation",
        "simulator_floor": None if floor is None else _or_none(floor.median),
        "about": plain(about),
        "commit": commit(),
        "versions": installed_versions(),
        "hardware": hardware(),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(out / "report.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        draw_report(judged, table, rows.apart, None if floor is None else floor.median, out / "report.png")
        page = rendered(Path(__file__).with_name("report.html.j2"), {**content, "judged": judged})
        _write(out / "report.html", page)
    except OSError as error:
        raise StorageError(
            f"cannot write the report into {out}: {error.strerror or error}; model and samples are intact: free some "
            f"space, and give resume=true"
        ) from error
    return out / "report.html"


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _others(synthetic: Transitions, real: Transitions, bounds: Bounds | None, fit: FitConfig) -> dict[str, Transitions]:
    """Returns as many samples of simpler models: noise as near to the real rows as `synthetic`, and others."""
    noise, gaussian = NoiseAugmenter(real.columns, bounds), GaussianAugmenter(real.columns, bounds)
    short = fit.shorter(min(_VAE_STEPS, fit.loop.num_grad_steps or _VAE_STEPS))
    batch = min(short.loop.batch_size, len(real))  # also of data that nothing else has to be fitted to
    optim = OptimConfig(lr=_VAE_LR, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, grad_clip=1.0)
    loop = replace(short, optim=optim, loop=replace(short.loop, batch_size=batch, bf16=False))
    torch.manual_seed(fit.seed)  # its first weights
    vae = VaeAugmenter(real.columns, bounds, train_by=InMemory(loop))
    models: dict[str, TransitionModel] = {"noise": noise, "vae": vae, "gaussian": gaussian}
    for each, model in models.items():
        logger.info("fitting %s, to compare with", each)
        model.fit(real)
    rows = RealRows(noise, real)
    noise_as_near(real, rows, rows.nearest(synthetic).synthetic, noise)
    return {each: model.sample(len(synthetic), seed=fit.seed) for each, model in models.items()}


def _dynamics(
    tables: Mapping[str, Transitions], real: Transitions, provenance: Mapping[str, Any]
) -> tuple[str, dict[str, DynamicsErrors], DynamicsErrors | None]:
    """Returns why there are no errors (or nothing), the errors by model, and those of the real rows themselves."""
    if not real.columns.outcome:
        return "not measured: windows of demonstrations tell of no outcome", {}, None
    try:
        simulator, close = open_simulator(provenance, real.columns)
    except ConfigError as error:
        return f"not measured: {error}", {}, None
    try:
        scale = scales(real)
        spread = real.subset(np.random.default_rng(0).permutation(len(real))[:SIMULATED])
        errors = {name: dynamics_errors(simulator, table, scale) for name, table in tables.items()}
        return "", errors, dynamics_errors(simulator, spread, scale)
    finally:
        close()


def _figures(judged: Judged) -> dict[str, Any]:
    like, dynamics = judged.fidelity, judged.dynamics
    outcome: dict[str, Any] = {
        "terminal_rate": like.terminal_rate[1],
        "terminal_rate_real": like.terminal_rate[0],
        "reward_mean": like.reward_mean[1],
        "reward_mean_real": like.reward_mean[0],
        "reward_std": like.reward_std[1],
        "reward_std_real": like.reward_std[0],
    }
    figures: dict[str, Any] = {
        "samples": len(judged.table),
        "ks_mean": like.ks_mean,
        "ks_min": like.ks_min,
        "ks_worst": min(like.ks, key=lambda name: like.ks[name]),
        "correlation_mean": like.correlation_mean,
        "correlation_min": like.correlation_min,
        "nearest": like.nearest.synthetic,
        "copies": like.nearest.copies,
        **(outcome if judged.table.columns.outcome else {}),
    }
    if dynamics is not None:
        figures |= {
            "dynamics_median": _or_none(dynamics.median),
            "dynamics_mse": _or_none(dynamics.mse),
            "dynamics_reward_median": float(np.median(dynamics.reward)) if len(dynamics.reward) else None,
            "dynamics_rows": len(dynamics.rows),
            "dynamics_left_out": dynamics.left_out,
            **_terminals(dynamics),
        }
    return figures


def _terminals(dynamics: DynamicsErrors) -> dict[str, Any]:
    ends = dynamics.terminals
    return {
        "terminals_told": ends.told,
        "terminals_simulated": ends.simulated,
        "terminal_precision": _or_none(ends.precision),
        "terminal_recall": _or_none(ends.recall),
    }


def _or_none(value: float) -> float | None:
    """Returns a number, None where there is none: JSON knows no NaN."""
    return value if np.isfinite(value) else None
