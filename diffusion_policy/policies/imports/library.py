"""Finds out whose checkpoint something is, reads it, and gives its fields other names."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from diffusion_policy.config import ObsField
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.imports.lerobot import read_lerobot
from diffusion_policy.policies.imports.reference import read_reference

_PART = re.compile(r"(?P<name>[^\s:,=]+)(?::(?P<shape>\d+(?:x\d+)*))?")

Fields = Mapping[str, Mapping[str, tuple[int, ...] | None]]
"""Of each field that gets other names: the new names, each with its shape; None for the shape that it has."""


def import_policy(source: str | Path, fields: Fields | None = None) -> DiffusionPolicy:
    """Returns the policy in somebody else's checkpoint, in evaluation mode.

    Nothing in the file is executed or imported. `save` then writes policy.pt.

    Args:
        source: a folder that LeRobot's `save_pretrained` has written, or a .ckpt of the reference repository.
        fields: other names of its observations, so that they are those of your environment. A vector may become
            several, in this order: {"obs": {"keypoints": (9, 2), "agent_pos": (2,)}}.

    Raises:
        MissingFileError: there is nothing at `source`.
        CheckpointError: it is damaged, or of a kind that is not known.
        ConfigError: `fields` do not fit its observations.
    """
    path = Path(source).expanduser()
    try:
        policy = _read(path)
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{path}: {error}") from error
    return with_fields(policy, fields) if fields else policy


def _read(path: Path) -> DiffusionPolicy:
    if path.is_dir():
        inner = path / "pretrained_model"  # a training's folder of LeRobot holds it beside the optimiser's
        folder = inner if inner.is_dir() and not (path / "config.json").exists() else path
        if not (folder / "config.json").is_file():
            raise MissingFileError(
                f"{folder / 'config.json'} does not exist; expected a folder that LeRobot's save_pretrained has "
                f"written, or one around its pretrained_model"
            )
        return read_lerobot(folder)
    if path.is_file():
        return read_reference(path)
    raise MissingFileError(f"{path} does not exist; expected a LeRobot folder, or a .ckpt file")


def with_fields(policy: DiffusionPolicy, fields: Fields) -> DiffusionPolicy:
    """Returns a policy that computes the same of observations with other names; see `import_policy`."""
    if unknown := sorted(set(fields) - set(policy.obs_spec)):
        raise ConfigError(f"no observation is called {', '.join(unknown)}, it has: {', '.join(policy.obs_spec)}")
    parts = {key: fields.get(key, {key: None}) for key in policy.obs_spec}
    names = [name for each in parts.values() for name in each]
    if len(set(names)) < len(names):
        raise ConfigError(f"two observations would have the same name: {', '.join(names)}")
    obs_spec: dict[str, ObsField] = {}
    weights = {key: value for key, value in policy.state_dict().items() if not key.startswith(_OF_FIELDS)}
    encoders = dict(policy.config.encoder.fields)
    for place, (key, field) in enumerate(policy.obs_spec.items()):
        shapes = _shapes(key, field, parts[key])
        first = len(obs_spec)
        obs_spec |= {name: ObsField(field.type, shape, field.unit) for name, shape in shapes.items()}
        if key in encoders:
            encoders[next(iter(shapes))] = encoders.pop(key)
        weights |= _moved(policy, place, [math.prod(shape) for shape in shapes.values()], list(shapes.values()), first)
    sections = policy.plain_config()
    sections["encoder"] = {**sections["encoder"], "fields": encoders}
    other = DiffusionPolicy.from_sections(sections, obs_spec, policy.action_spec)
    other.load_state_dict(weights)
    other.info = policy.info
    return other.eval()


_OF_FIELDS = ("obs_normalizers.", "encoder.encoders.")


def parse_fields(words: Sequence[str]) -> Fields:
    """Returns what words like "obs=keypoints:9x2,agent_pos:2" or "observation.image=front" say.

    Raises:
        ConfigError: a word says something else.
    """
    made: dict[str, dict[str, tuple[int, ...] | None]] = {}
    for word in words:
        key, equals, rest = word.partition("=")
        found = [_PART.fullmatch(part) for part in rest.split(",")]
        if not (key and equals) or not all(found):
            raise ConfigError(
                f"expected OLD=NEW, or OLD=NEW:SHAPE,NEW:SHAPE, e.g. obs=keypoints:9x2,agent_pos:2, got {word}"
            )
        made[key] = {
            part["name"]: tuple(int(n) for n in part["shape"].split("x")) if part["shape"] else None
            for part in found
            if part is not None
        }
    return made


def _shapes(key: str, field: ObsField, parts: Mapping[str, tuple[int, ...] | None]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parts of a field."""
    if len(parts) == 1 and None in parts.values():
        return dict.fromkeys(parts, field.shape)
    shapes = {name: shape for name, shape in parts.items() if shape is not None}
    sizes = sum(math.prod(shape) for shape in shapes.values())
    if field.is_picture or len(shapes) < len(parts) or sizes != field.size:
        asked = ", ".join(f"{name} {shape or '?'}" for name, shape in parts.items())
        raise ConfigError(
            f"observation {key} {field.shape} cannot become {asked}: expected vectors of {field.size} numbers"
        )
    return shapes


def _moved(
    policy: DiffusionPolicy, place: int, sizes: list[int], shapes: list[tuple[int, ...]], first: int
) -> dict[str, Tensor]:
    """Returns the weights of a field under the places of its parts."""
    made = {}
    for part, name in (("obs_normalizers", "normalizers"), ("encoder.encoders", "encoders")):
        modules: nn.ModuleList = policy.obs_normalizers if name == "normalizers" else policy.encoder.encoders
        for key, value in modules[place].state_dict().items():
            if name == "encoders":
                made[f"{part}.{first}.{key}"] = value
                continue
            pieces = value.flatten().split(sizes)
            made |= {
                f"{part}.{first + n}.{key}": piece.reshape(shape)
                for n, (piece, shape) in enumerate(zip(pieces, shapes, strict=True))
            }
    return made
