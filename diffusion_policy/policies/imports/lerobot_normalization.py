"""How LeRobot scales observations and actions: statistics of the data set, a mode for each type of feature.

Since 0.4 they stand in the files of two processors beside the weights, before among the weights. The formulas are
LeRobot's: `2 (x - min) / (max - min) - 1`, `(x - mean) / (std + 1e-8)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion_policy.errors import CheckpointError
from diffusion_policy.policies.imports.foreign_settings import Settings, read_json
from diffusion_policy.policies.imports.safetensors_file import read_safetensors
from diffusion_policy.policies.imports.weights import Affine, Weights

_EPS = 1e-8
_PAIRS = {
    "MIN_MAX": ("min", "max"),
    "MEAN_STD": ("mean", "std"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
_KNOWN_STEPS = {
    "rename_observations_processor",
    "to_batch_processor",
    "device_processor",
    "normalizer_processor",
    "unnormalizer_processor",
}
_OLD = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")

Statistics = Mapping[str, Mapping[str, Tensor]]
"""Of each field, e.g. its "min" and "max"."""


@dataclass(frozen=True)
class Normalization:
    """Modes and statistics of a checkpoint.

    Args:
        modes: of each type of feature, e.g. {"STATE": "MIN_MAX"}; a type that is not named is left as it is.
        kinds: the type of each field.
        observed: statistics of observations.
        acted: statistics of actions.
        old: whether formulas are those of LeRobot before 0.4.
    """

    modes: Mapping[str, str]
    kinds: Mapping[str, str]
    observed: Statistics
    acted: Statistics
    old: bool

    def mode(self, kind: str) -> str:
        """Returns the mode of a type of feature."""
        return self.modes.get(kind, "IDENTITY")

    def of(self, key: str) -> Affine:
        """Returns how an observation is normalised."""
        found = self._low_and_width(key, self.observed)
        if found is None:
            return _as_it_is()
        low, width, centred = found
        added = _EPS if centred or self.old else 0.0
        # theirs divides what does not vary by 1e-8, and any change of it floods the network; here it is only shifted
        scale = torch.where(width == 0, 1.0, (1.0 if centred else 2.0) / (width + added))
        return Affine(scale, -low * scale - (0.0 if centred else 1.0))

    def of_action(self) -> Affine:
        """Returns how an action is normalised, as the inverse of what answers are multiplied by."""
        found = self._low_and_width("action", self.acted)
        if found is None:
            return _as_it_is()
        low, width, centred = found
        scale = (1.0 if centred else 2.0) / torch.where(width == 0, _EPS, width)
        return Affine(scale, -low * scale - (0.0 if centred else 1.0))

    def _low_and_width(self, key: str, statistics: Statistics) -> tuple[Tensor, Tensor, bool] | None:
        """Returns where a field begins, how wide it is, and whether it is mean and deviation; None to leave it."""
        mode = self.mode(self.kinds[key])
        if mode == "IDENTITY" or key not in statistics:
            return None
        if mode not in _PAIRS:
            raise CheckpointError(f"{key} is normalised by {mode}, known: {', '.join(_PAIRS)}, IDENTITY")
        missing = [name for name in _PAIRS[mode] if name not in statistics[key]]
        if missing:
            raise CheckpointError(f"statistics of {key} lack {' and '.join(missing)}, which {mode} needs")
        first, second = (statistics[key][name].double().reshape(-1) for name in _PAIRS[mode])
        if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
            raise CheckpointError(f"statistics of {key} are not finite: the policy was saved without those of its data")
        return (first, second, True) if mode == "MEAN_STD" else (first, second - first, False)


def _as_it_is() -> Affine:
    return Affine(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


def read_normalization(folder: Path, config: Settings, weights: Weights) -> Normalization:
    """Returns the normalisation of a checkpoint, and takes from its weights what of it stands there.

    Raises:
        CheckpointError: there is none, or a processor does something that is not known.
    """
    features = {**config.part("input_features").values, **config.part("output_features").values}
    kinds = {key: Settings(feature, f"config.json: {key}").text("type") for key, feature in features.items()}
    before, after = (folder / f"policy_{name}processor.json" for name in ("pre", "post"))
    if before.is_file():
        modes, observed = _read_processor(before, "normalizer_processor")
        acted = _read_processor(after, "unnormalizer_processor")[1] if after.is_file() else observed
        weights.drop(name for prefix in _OLD for name in weights.names(prefix))  # left behind by a migration
        return Normalization(modes, kinds, observed, acted, old=False)
    modes = {kind: str(mode) for kind, mode in config.part("normalization_mapping").values.items()}
    found = {prefix: _old_statistics(weights, prefix, kinds) for prefix in _OLD}
    if not any(found.values()) and any(mode != "IDENTITY" for mode in modes.values()):
        raise CheckpointError(
            f"{folder} has neither policy_preprocessor.json nor statistics among its weights; copy the folder whole"
        )
    return Normalization(modes, kinds, found[_OLD[0]], found[_OLD[2]], old=True)


def _old_statistics(weights: Weights, prefix: str, kinds: Mapping[str, str]) -> Statistics:
    """Returns and takes e.g. normalize_inputs.buffer_observation_state.min: dots of names have become underscores."""
    names = {f"{prefix}buffer_{key.replace('.', '_')}.": key for key in kinds}
    made: dict[str, dict[str, Tensor]] = {}
    for name in weights.names(prefix):
        stem, _, statistic = name.rpartition(".")
        if f"{stem}." not in names:
            raise CheckpointError(f"{weights.what} has statistics {name} of a field that config.json does not name")
        made.setdefault(names[f"{stem}."], {})[statistic] = weights.take(name)
    return made


def _read_processor(path: Path, wanted: str) -> tuple[Mapping[str, str], Statistics]:
    """Returns modes and statistics of the step `wanted` of a processor."""
    steps = read_json(path).values.get("steps")
    if not isinstance(steps, list):
        raise CheckpointError(f"{path.name} has no list of steps; it is damaged")
    found: tuple[Mapping[str, str], Statistics] | None = None
    for step in (Settings(step, f"{path.name}: a step") for step in steps):
        name = step.text("registry_name", "")
        if name not in _KNOWN_STEPS:
            raise CheckpointError(f"{path.name} has the step {name or step.values.get('class')!r}, which is not known")
        if name == wanted:
            found = _modes(step), _step_statistics(path, step)
    if found is None:
        raise CheckpointError(f"{path.name} has no step {wanted}; expected one")
    return found


def _modes(step: Settings) -> Mapping[str, str]:
    config = step.part("config")
    if config.has("normalize_observation_keys"):
        raise CheckpointError(f"{step.what} normalises some observations only, which is not known here")
    return {kind: str(mode) for kind, mode in config.part("norm_map").values.items()}


def _step_statistics(path: Path, step: Settings) -> Statistics:
    if not step.has("state_file"):
        return {}
    name = step.text("state_file")
    if Path(name).name != name:
        raise CheckpointError(f"{path.name} names the file {name!r}, expected one in its own folder; refused")
    made: dict[str, dict[str, Tensor]] = {}
    for entry, value in read_safetensors(path.parent / name).items():
        key, _, statistic = entry.rpartition(".")
        made.setdefault(key, {})[statistic] = value
    return made
