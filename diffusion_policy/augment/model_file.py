"""augmenter.pt: a fitted model as data, plain values and tensors, so that sampling needs no refit.

Top level: `format, kind, config, columns, bounds, state_dict, info`. Loaded with `weights_only`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from diffusion_policy.augment.augmenter import LearnedModel, Trainer, TransitionModel
from diffusion_policy.augment.baselines import NoiseAugmenter, NoiseConfig, VaeAugmenter, VaeConfig
from diffusion_policy.augment.synther import SyntherAugmenter, SyntherConfig
from diffusion_policy.augment.transitions import Columns
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.errors import CheckpointError, ConfigError, UnknownNameError
from diffusion_policy.policies.data_file import read_sections, save_atomically
from diffusion_policy.settings import build, plain, section

FORMAT = 2
KINDS = (SyntherAugmenter.kind, VaeAugmenter.kind, NoiseAugmenter.kind)


def _terminal_like_others(content: dict[str, Any]) -> dict[str, Any]:
    """Returns a file of format 1 as one of format 2: its terminal is a column like others, and stays so."""
    if content["kind"] != SyntherAugmenter.kind:
        return content
    ones = torch.ones(Columns.from_plain(content["columns"]).size)
    return {**content, "state_dict": {"unit": ones, "deviation": ones, **content["state_dict"]}}


_MIGRATIONS = {1: _terminal_like_others}
_SECTIONS = ("kind", "config", "columns", "bounds", "state_dict", "info")


def make_model(
    kind: str,
    config: Mapping[str, Any],
    columns: Columns,
    bounds: Bounds | None = None,
    train_by: Trainer | None = None,
) -> TransitionModel:
    """Returns a new model.

    Args:
        kind: "synther", "vae" or "noise".
        config: its settings, plain values.
        columns: of the table.
        bounds: of the action.
        train_by: see `LearnedModel`; noise needs no training.

    Raises:
        UnknownNameError: no such kind.
        ConfigError: a setting is unknown or does not fit.
    """
    if kind == SyntherAugmenter.kind:
        return SyntherAugmenter(columns, bounds, SyntherConfig.from_plain(config), train_by)
    if kind == VaeAugmenter.kind:
        return VaeAugmenter(columns, bounds, build(VaeConfig, config, "vae"), train_by)
    if kind == NoiseAugmenter.kind:
        return NoiseAugmenter(columns, bounds, build(NoiseConfig, section(config, "noise"), "noise").scale)
    raise UnknownNameError(f"unknown augmenter '{kind}', known: {', '.join(KINDS)}")


def save_model(model: LearnedModel, path: str | Path, info: Mapping[str, Any]) -> None:
    """Writes augmenter.pt whole or not at all.

    Args:
        model: fitted.
        path: the file.
        info: where it comes from, plain values: dataset, training, seeds, versions.
    """
    content = {
        "format": FORMAT,
        "kind": model.kind,
        "config": plain(model.plain_config()),
        "columns": model.columns.told(),
        "bounds": plain(model.bounds),
        "state_dict": {key: value.detach().cpu().clone() for key, value in model.state_dict().items()},
        "info": plain(info),
    }
    save_atomically(content, path)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[LearnedModel, dict[str, Any]]:
    """Returns the model in an augmenter.pt, in evaluation mode, and its `info`.

    Raises:
        MissingFileError: no such file.
        CheckpointError: damaged, unsafe, of a newer format, or no augmenter.
    """
    content = read_sections(
        path,
        "augmenter",
        expected="the augmenter.pt of a dp-augment run",
        newest=FORMAT,
        sections=_SECTIONS,
        mappings=("config", "columns", "state_dict", "info"),
        migrations=_MIGRATIONS,
        telling="kind",
    )
    bounds = content["bounds"]
    try:
        model = make_model(
            str(content["kind"]),
            content["config"],
            Columns.from_plain(content["columns"]),
            None if bounds is None else (tuple(bounds[0]), tuple(bounds[1])),
        )
        model = cast("LearnedModel", model)  # others are never saved
        model.load_state_dict(content["state_dict"])
    except (RuntimeError, ConfigError, UnknownNameError, KeyError, TypeError, AttributeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: weights and configuration do not fit: {first}") from error
    return model.to(device).eval().requires_grad_(False), content["info"]


def model_digest(model: TransitionModel) -> str:
    """Returns what changes when the model would draw other samples, hex: its settings, columns and weights."""
    state = hashlib.sha256(json.dumps([model.kind, plain(model.plain_config()), model.columns.told()]).encode())
    for key, value in sorted(model.state_dict().items()):
        state.update(key.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
