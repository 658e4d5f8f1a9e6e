"""The setting `dataset`: a path, or a list of data sets that a run trains on together, each with a weight or not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_policy.errors import ConfigError
from diffusion_policy.paths import absolute_dataset
from diffusion_policy.settings import build, plain

_SPELLINGS = "dataset=demos.zarr, 'dataset=[a.zarr, b.zarr]' or 'dataset=[{path: a.zarr, weight: 0.7}, ...]'"


@dataclass(frozen=True)
class Chosen:
    """One data set of a run.

    Args:
        path: of the zarr, or package://NAME.
        weight: its share of the batches, before all weights are divided by their sum; None in proportion to its
            windows.
        digest: of the keys that are read, as a run's config.yaml notes it: other data are refused.
    """

    path: str
    weight: float | None = None
    digest: str | None = None

    @property
    def setting(self) -> dict[str, Any]:
        """What a configuration says of it."""
        return {name: value for name, value in plain(self).items() if value is not None}


def chosen_sets(setting: Any) -> list[Chosen]:
    """Returns the data sets that a setting names, at least one.

    Raises:
        ConfigError: it names none, or one twice, or weights that are no shares, or not for all.
    """
    if not setting:
        raise ConfigError("dataset: expected a zarr folder or .zip, got nothing; give dataset=PATH or package://pusht")
    if isinstance(setting, (str, Path)):
        return [Chosen(str(setting))]
    if not isinstance(setting, Sequence):
        raise ConfigError(f"dataset: expected a path or a list, but got {setting!r}; write {_SPELLINGS}")
    chosen = [_one(each, f"dataset[{i}]") for i, each in enumerate(setting)]
    paths = [each.path for each in chosen]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"dataset: {path} is named twice; name it once, with a larger weight")
    without = [each.path for each in chosen if each.weight is None]
    if without and len(without) < len(chosen):
        raise ConfigError(
            f"dataset: give a weight to each set or to none (in proportion to their windows), but {', '.join(without)} "
            f"has none"
        )
    return chosen


def _one(entry: Any, where: str) -> Chosen:
    if isinstance(entry, (str, Path)) and str(entry):
        return Chosen(str(entry))
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected a path, or {{path: ..., weight: ...}}, but got {entry!r}")
    chosen = build(Chosen, entry, where)
    if chosen.weight is not None and not (chosen.weight > 0 and math.isfinite(chosen.weight)):
        raise ConfigError(f"{where}.weight must be above 0, but got {chosen.weight:g}; leave {chosen.path} out instead")
    return chosen


def absolute_datasets(setting: Any) -> Any:
    """Returns the setting with paths that hold wherever a run is resumed from; what is no such setting as it is."""
    if isinstance(setting, (str, Path)) and str(setting):
        return absolute_dataset(setting)
    if isinstance(setting, Mapping) and setting.get("path"):
        return {**setting, "path": absolute_dataset(str(setting["path"]))}
    return [absolute_datasets(each) for each in setting] if isinstance(setting, (list, tuple)) else setting


def short_names(chosen: Sequence[Chosen]) -> list[str]:
    """Returns what data sets are called in metrics: their file's name without suffixes, numbered where that is taken.

    Paths are for config.yaml alone, which stays; a policy travels.
    """
    names: list[str] = []
    for each in chosen:
        stem = Path(each.path.rstrip("/")).name.removesuffix(".zip").removesuffix(".zarr") or "data"
        taken = [f"{stem}-{n}" for n in range(2, len(chosen) + 1)]
        names.append(next(name for name in [stem, *taken] if name not in names))
    return names
