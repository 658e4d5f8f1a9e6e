"""The settings of a run of dp-augment, and the folder of its fit, which keeps those that a resumed fit must share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffusion_policy.errors import ConfigError, OutputExistsError, StorageError
from diffusion_policy.paths import local_path
from diffusion_policy.policies.device import pick_device
from diffusion_policy.settings import build, build_part, difference, section
from diffusion_policy.training.augmenting.fitting import FitConfig
from diffusion_policy.training.hooks import HookConfig
from diffusion_policy.training.loop import LoopConfig
from diffusion_policy.training.optim import OptimConfig

MODEL_SECTIONS = ("model", "edm", "sampling")
SECTIONS = (*MODEL_SECTIONS, "noise", "horizons", "data", "optim", "training")
SETTINGS = (
    "augmenter", "dataset", "samples", "rows", "seed", "device", "out", "run", "fitted", "resume", "report", "plugins",
)  # fmt: skip
_OF_THE_FIT = ("augmenter", "dataset", "seed", *SECTIONS)  # of a run that goes on, these are the same


def output(settings: Mapping[str, Any]) -> Path | None:
    """Returns where the samples go; None where none are asked for.

    Raises:
        ConfigError: nothing is asked for, or a .zip, which cannot grow.
        OutputExistsError: something is there, and `resume` is not set.
    """
    if not settings.get("out"):
        if not settings.get("report" if settings.get("fitted") else "run"):
            raise ConfigError(
                "out: expected a path for the data, got nothing; give out=synthetic.zarr, or run= to fit only"
            )
        return None
    out = local_path(str(settings["out"]))
    if out.suffix == ".zip":
        raise ConfigError(f"out={out}: expected a folder to append to, but got a .zip; give out={out.with_suffix('')}")
    if out.exists() and not settings.get("resume"):
        raise OutputExistsError(f"{out} exists; choose another out=, or resume=true to go on with it")
    return out


def fit_folder(settings: Mapping[str, Any], out: Path | None) -> Path:
    """Returns where a fit is kept: `run`, or beside the samples.

    Raises:
        ConfigError: where the samples go.
    """
    given = settings.get("run")
    run = Path(str(given)).expanduser() if given else Path(f"{str(out).removesuffix('.zarr')}.fit")
    if out is not None and run.absolute() == out.absolute():
        raise ConfigError(f"run={run}: expected another folder than out=, which holds nothing but the samples")
    return run


def run_folder(settings: dict[str, Any], out: Path | None) -> Path:
    """Returns the fit's folder, new or to go on with; writes its config.yaml."""
    run = fit_folder(settings, out)
    kept = {name: settings[name] for name in _OF_THE_FIT if settings.get(name) is not None}
    if settings.get("augmenter") != "noise":
        kept.pop("noise", None)
    file = run / "config.yaml"
    if file.is_file() and settings.get("resume"):
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        if told := difference(before, kept):
            raise ConfigError(f"{run} was begun with {told}; resume with the same settings, or choose another run=")
        return run
    torn = run / ".config.yaml.tmp"  # a kill may leave it
    if run.exists() and any(each != torn for each in run.iterdir()):
        raise OutputExistsError(f"run={run} already holds something; choose another run=, or resume=true to go on")
    try:
        run.mkdir(parents=True, exist_ok=True)
        torn.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        torn.replace(file)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}; choose another run=") from error
    return run


def fit_config(settings: Mapping[str, Any]) -> FitConfig:
    """Returns how a model is trained."""
    training = section(settings, "training")
    known = {*LoopConfig.__dataclass_fields__, "log_every", "checkpoint_every"}
    unknown = sorted(set(training) - known)
    if unknown:
        raise ConfigError(f"training: unknown setting {', '.join(unknown)}, known: {', '.join(sorted(known))}")
    seed = settings.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number, 0 or more, but got {seed!r}")
    return FitConfig(
        build_part(LoopConfig, training, "training"),
        build(OptimConfig, section(settings, "optim"), "optim"),
        build_part(HookConfig, training, "training"),
        seed,
        pick_device(str(settings.get("device", "auto"))),
    )


def check_names(settings: Mapping[str, Any]) -> None:
    """Raises ConfigError where a setting is unknown."""
    unknown = sorted(set(settings) - set(SECTIONS) - set(SETTINGS))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join((*SETTINGS, *SECTIONS))}")
