"""A run of dp-augment: real transitions, or windows of demonstrations -> a model -> synthetic ones in zarr -> a report.

`augment(config)` is the notebook's way in. Each stage is left where it was killed, and gone on with by `resume`.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_policy.augment.augmenter import ROWS, LearnedModel, Trainer, TransitionModel
from diffusion_policy.augment.baselines import NoiseAugmenter, VaeAugmenter
from diffusion_policy.augment.model_file import load_model, make_model, model_digest
from diffusion_policy.augment.reading import read_transitions
from diffusion_policy.augment.stream import stream
from diffusion_policy.augment.synther import SyntherAugmenter
from diffusion_policy.augment.transitions import Transitions
from diffusion_policy.augment.windows import read_stored_windows
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.locks import FolderLock
from diffusion_policy.policies.device import has_fast_bf16
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.provenance import commit
from diffusion_policy.settings import plain, section
from diffusion_policy.training.augmenting.config import MODEL_SECTIONS, check_names, fit_config, output, run_folder
from diffusion_policy.training.augmenting.fitting import MODEL_FILE, FitConfig, InFolder, check_enough
from diffusion_policy.training.augmenting.real_data import RealData, read_real
from diffusion_policy.training.augmenting.report import write_report
from diffusion_policy.versions import installed_versions

logger = logging.getLogger(__name__)

_REPORTED = 20_000  # samples


@dataclass(frozen=True)
class Augmented:
    """What a run left behind.

    Args:
        finished: False when the fit was interrupted.
        run: the fit's folder; None where a fitted model was given. What needs no training leaves no model there.
        out: the synthetic data; None where none were asked for.
        digest: of them.
        report: the report's HTML; None where none was asked for.
        real: how many rows the model learned from, and how many were left out; None where it was interrupted.
        before: whether all of it had been finished before: nothing was fitted or drawn now.
    """

    finished: bool
    run: Path | None
    out: Path | None = None
    digest: str = ""
    report: Path | None = None
    real: Mapping[str, Any] | None = None
    before: bool = False


def augment(config: Mapping[str, Any]) -> Augmented:
    """Fits a model to a data set, draws from it, and reports how good it is.

    Args:
        config: plain nested values, which `diffusion_policy.compose_config("augment", "dataset=hopper.zarr",
            "samples=100000", "out=synthetic.zarr")` returns. With `fitted`, of the sections only `sampling` holds; what
            it leaves out is as in the file.

    Raises:
        ConfigError: unknown or contradicting settings.
        MissingFileError: the data set or the fitted model is not there.
        OutputExistsError: `out` or the run's folder holds something, and `resume` is not set.
        DataError: the data set cannot be augmented: no rewards or ends, pictures, NaN, too few transitions.
        NonFiniteLossError: training diverged.
    """
    settings = plain(config)
    check_names(settings)
    fit, out = fit_config(settings), output(settings)
    made: set[str] = set()  # what was not there before
    if settings.get("fitted"):
        run, (loaded, info) = None, _loaded(settings, fit)
        real = _compared_with(settings, loaded, info) if settings.get("report") else None
        model: TransitionModel = loaded
    else:
        real = read_real(settings)
        with torch.device("meta"):  # what would be refused is refused before anything is written
            if isinstance(_new_model(settings, real, None), LearnedModel):
                check_enough(real.table, fit)
        run = run_folder(settings, out)
        with FolderLock(run, "run"):
            fitted = _fitted(settings, fit, run, real, made)
        if fitted is None:
            return Augmented(False, run)
        model, info = fitted
    digest = _streamed(settings, model, info, out, made) if out is not None else ""
    report = None
    if real is not None and settings.get("report"):
        folder = run or Path(str(settings["fitted"])).expanduser().parent
        report = _reported(settings, fit, model, info, real, folder, out)
    before = not made and (run is not None or out is not None)
    return Augmented(True, run, out, digest, report, info["real"], before)


def _loaded(settings: dict[str, Any], fit: FitConfig) -> tuple[LearnedModel, dict[str, Any]]:
    """Returns the model of `fitted` and its info."""
    model, info = load_model(str(settings["fitted"]), fit.device)
    done, of = info["training"]["grad_steps"], info["training"]["of"]
    if done < of:
        logger.warning("%s: its fit was interrupted after %d of %d steps", settings["fitted"], done, of)
    if isinstance(model, SyntherAugmenter):
        model.draw_by(section(settings, "sampling"))
    return model, info


def _compared_with(settings: dict[str, Any], model: LearnedModel, info: Mapping[str, Any]) -> RealData:
    """Returns the rows for a fitted model's report; refuses now what it could not compare."""
    real = read_real({**settings, "horizons": info["real"].get("horizons")})
    if replace(real.table.columns, ends_told=True) != replace(model.columns, ends_told=True):
        raise ConfigError(f"report: {settings['dataset']} has other columns than the model learned from")
    return real


def _fitted(
    settings: dict[str, Any], fit: FitConfig, run: Path, real: RealData, made: set[str]
) -> tuple[TransitionModel, dict[str, Any]] | None:
    """Returns the fitted model and its info; None when its training was interrupted. Tells `made` if it trained."""
    file = run / MODEL_FILE
    if file.is_file():
        found, told = load_model(file, fit.device)
        if told["real"]["digest"] != real.digest:
            raise DataError(
                f"{settings['dataset']} has changed since {run} was begun (digest {real.digest[:12]}, then "
                f"{told['real']['digest'][:12]}); restore it, or start anew with another run="
            )
        if told["training"]["grad_steps"] >= told["training"]["of"]:
            return found, told
    record = {name: real.provenance[name] for name in ("env_id", "kwargs", "control_hz") if name in real.provenance}
    info = {
        "env": record if real.horizons is None else {},  # chunks are no actions that its bounds could be compared with
        "action_bounds": [list(bound) for bound in real.bounds] if real.of_env else None,
        "real": real.told(),
        "versions": installed_versions(),
        "commit": commit(),
    }
    trainer = InFolder(fit, run, real.digest, str(settings["dataset"]), info)
    torch.manual_seed(fit.seed)  # the one global seed, here: reading a model's file has drawn from it
    model = _new_model(settings, real, trainer)
    model.fit(real.table)
    if not isinstance(model, LearnedModel):  # measured again whenever it is needed
        return model, {**info, "training": {"grad_steps": 0, "of": 0, "seeds": [fit.seed]}}
    made.add("model")
    return load_model(file, fit.device) if trainer.finished else None


def _new_model(settings: Mapping[str, Any], real: RealData, trainer: Trainer | None) -> TransitionModel:
    kind = str(settings.get("augmenter", "synther"))
    sections = {NoiseAugmenter.kind: ("noise",), VaeAugmenter.kind: ()}.get(kind, MODEL_SECTIONS)
    config = {name: section(settings, name) for name in sections if settings.get(name)}
    return make_model(kind, config, real.table.columns, real.bounds, trainer)


def _streamed(
    settings: Mapping[str, Any], model: TransitionModel, info: Mapping[str, Any], out: Path, made: set[str]
) -> str:
    """Returns the digest of the samples, all of them in `out`. Tells `made` if it drew some."""
    samples = int(settings["samples"])
    provenance = {
        **info["env"],
        "action_bounds": info["action_bounds"],
        "augmenter": {"kind": model.kind, **model.plain_config(), "digest": model_digest(model)},
        "device": _device(model).type,  # elsewhere, numbers are rounded otherwise
        "bf16": _computes_bf16(model),
        "real": info["real"],
        "training": info["training"],
        "versions": installed_versions(),
        "commit": commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    seed, rows, resume = int(settings.get("seed", 0)), int(settings.get("rows", 2048)), bool(settings.get("resume"))
    with ProgressBar("sample", samples) as bar:

        def drew(so_far: int) -> None:
            made.add("samples")
            bar.update(so_far)

        return stream(model, out, samples, seed=seed, rows=rows, provenance=provenance, resume=resume, on_rows=drew)


def _device(model: TransitionModel) -> torch.device:
    return next((each.device for each in model.parameters()), torch.device("cpu"))


def _computes_bf16(model: TransitionModel) -> bool:
    """Returns what "auto" means here: elsewhere, the rest of the data would be drawn with other roundings."""
    chosen = model.config.sampling.bf16 if isinstance(model, SyntherAugmenter) else False
    return has_fast_bf16(_device(model)) if chosen == "auto" else bool(chosen)


def _reported(
    settings: Mapping[str, Any],
    fit: FitConfig,
    model: TransitionModel,
    info: Mapping[str, Any],
    real: RealData,
    folder: Path,
    out: Path | None,
) -> Path:
    synthetic = _samples(model, int(settings.get("seed", 0)), out)
    about = {**model.plain_config(), "training": info["training"], "real": info["real"], "samples": len(synthetic)}
    with ProgressBar("report", 1) as bar:
        page = write_report(model.kind, synthetic, real, fit, folder, {"augmenter": about}, _notes(info, real))
        bar.update(1)
    return page


def _notes(info: Mapping[str, Any], real: RealData) -> list[str]:
    """Returns what a reader of the report must know first."""
    notes = [real.warning] if real.warning else []
    if info["real"]["digest"] != real.digest:
        notes.append(f"The model learned from other transitions than these, from {info['real']['transitions']}")
    return notes


def _samples(model: TransitionModel, seed: int, out: Path | None) -> Transitions:
    """Returns some samples: those that were written, if there are any."""
    if out is not None:
        with ReplayBuffer.open(out) as buffer:
            if not model.columns.outcome:
                return read_stored_windows(buffer, model.columns, _REPORTED)
            chosen = np.arange(min(_REPORTED, buffer.num_episodes))
            held = read_transitions(buffer, fields=list(model.columns.obs), episodes=chosen, ends="terminated")
        return Transitions(model.columns, held.rows)
    parts, done = [], 0
    with ProgressBar("sample", _REPORTED) as bar:
        for i, at in enumerate(range(0, _REPORTED, ROWS)):
            parts.append(model.sample_batch(min(ROWS, _REPORTED - at), seed=seed, batch=i).rows)
            done += len(parts[-1])
            bar.update(done)
    return Transitions(model.columns, np.concatenate(parts))
