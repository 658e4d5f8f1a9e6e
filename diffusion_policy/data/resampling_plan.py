"""How a given data set is brought to another rate: what is declared is checked against what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_policy.data.doctor.rotation_vectors import RotationVectorCheck
from diffusion_policy.data.doctor.streams import Role, roles, rows_of, usual
from diffusion_policy.data.doctor.units import UnitsCheck
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.resampling import ActionKind, Resampling, parsed_declarations
from diffusion_policy.data.rotations_between import FORMS, RotationForm
from diffusion_policy.errors import ConfigError


def resampling_of(
    source: ReplayBuffer, hz: float, action_kind: ActionKind | None, declared: Sequence[str]
) -> Resampling:
    """Returns how to resample a data set; reads its actions and states.

    Args:
        source: the data set.
        hz: new rows a second.
        action_kind: what actions are.
        declared: what turns or switches, "pose[3:7]=quaternion".

    Raises:
        ConfigError: something declared is not there, or something that must be declared is not: angles that wrap
            around, switches of delta actions.
    """
    known = roles(source, source.keys())
    numeric = [key for key, role in known.items() if role in ("action", "state")]
    named = _told_by_name(source, [key for key in numeric if _turns(known[key], action_kind)], declared)
    parts = parsed_declarations([*declared, *named])
    for key, mine in parts.items():
        for part, _ in mine:
            if key not in numeric or (part.stop is not None and part.stop > (source.shape(key) or (1,))[-1]):
                raise ConfigError(f"--declare {part}: expected a part of {', '.join(numeric)}; correct it")
    resampling = Resampling(hz, known, action_kind, parts)
    if action_kind != "absolute":
        _require_switches(source, [key for key in numeric if known[key] == "action"], parts)
    _require_rotations(source, [key for key in numeric if _turns(known[key], action_kind)], parts)
    return resampling


def _turns(role: Role, action_kind: ActionKind | None) -> bool:
    """Returns whether a rotation of this role is interpolated; actions that are changes or rates are added up."""
    return role != "action" or action_kind == "absolute"


def _require_rotations(source: ReplayBuffer, keys: Sequence[str], declared: Mapping[str, Sequence[Any]]) -> None:
    """Raises ConfigError where rotations turn over that are not declared: a straight line would lead through others."""
    known = usual(source, keys)
    vectors, angles = RotationVectorCheck(known), UnitsCheck(known)
    for i, episode in enumerate(source.episodes(list(keys))):
        vectors.add(i, episode)
        angles.add(i, episode)
    for each in (*vectors.findings(), *angles.findings()):
        said = {d for part, _ in declared.get(each.key, ()) for d in _dims(source, part.start, part.stop, each.key)}
        turning = sorted(set(each.dims) - said)
        if each.name == "rotation-vectors" and turning:
            place = f"{each.key}[{each.dims[0]}:{each.dims[-1] + 1}]"
            raise ConfigError(
                f"{source.location}: {place} is a rotation vector that turns over; say --declare '{place}=axis_angle', "
                f"or =held if it is none"
            )
        if each.name == "wraps" and turning:
            raise ConfigError(
                f"{source.location}: {each.key}[{turning[0]}] is an angle that wraps around, between whose ends "
                f"nothing lies; say --declare '{each.key}[{turning[0]}]=angle' (or degrees; held if it is none)"
            )


def _require_switches(source: ReplayBuffer, keys: Sequence[str], declared: Mapping[str, Sequence[Any]]) -> None:
    """Raises ConfigError where a delta action has a number of two values, a gripper's command: they would be added."""
    for key in keys:
        held = {d for part, _ in declared.get(key, ()) for d in _dims(source, part.start, part.stop, key)}
        switches = np.ones(int(np.prod(source.shape(key), dtype=np.int64)), bool)
        ends = usual(source, [key])[key]
        for episode in source.episodes([key]):
            rows = rows_of(episode[key])
            switches &= ((rows == ends.least) | (rows == ends.most)).all(axis=0)
        found = [int(d) for d in np.flatnonzero(switches & (ends.least < ends.most)) if int(d) not in held]
        if found:
            raise ConfigError(
                f"{source.location}: {key}[{found[0]}] has two values, as a gripper's command; say --declare "
                f"'{key}[{found[0]}]=held', or the changes of several steps would be added"
            )


def _dims(source: ReplayBuffer, start: int | None, stop: int | None, key: str) -> range:
    return range(*slice(start, stop).indices((source.shape(key) or (1,))[-1]))


def _told_by_name(source: ReplayBuffer, numeric: Sequence[str], words: Sequence[str]) -> list[str]:
    """Returns declarations of actions and states whose names say that they are rotations, or consist of such."""
    told = {word.partition("=")[0].partition("[")[0] for word in words}
    found = {key: form for key in numeric if (form := _form_of(key, (source.shape(key) or (1,))[-1]))}
    said = [f"{key}={form}" for key, form in found.items() if key not in told]
    record = source.attrs.get("provenance")
    parts = record.get("action_parts") if isinstance(record, Mapping) else None  # UMI's
    if not isinstance(parts, list) or "action" in told or "action" not in numeric:
        return said
    if not all(part in source for part in parts):
        return said
    sizes = [(source.shape(part) or (1,))[-1] for part in parts]
    starts = np.cumsum([0, *sizes]).tolist()
    if (starts[-1],) != source.shape("action"):
        return said
    placed = zip(parts, starts[:-1], sizes, strict=True)
    return said + [f"action[{at}:{at + n}]={form}" for part, at, n in placed if (form := _form_of(part, n))]


def _form_of(key: str, size: int) -> RotationForm | None:
    """Returns the form of the rotations that a name tells of."""
    name = key.lower()
    if "quat" in name and size == FORMS["quaternion"]:
        return "quaternion"
    vector = any(word in name for word in ("axis_angle", "rotvec", "rot_vec"))
    return "axis_angle" if vector and size == FORMS["axis_angle"] else None
