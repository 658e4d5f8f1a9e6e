"""How a given data set is brought to another rate: what is declared is checked against what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_policy.data.doctor.streams import roles, rows_of, usual
from diffusion_policy.data.doctor.units import UnitsCheck
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.resampling import ActionKind, Resampling, parsed_declarations
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
    parts = parsed_declarations([*declared, *_told_by_name(source, numeric, declared)])
    for key, mine in parts.items():
        for part, _ in mine:
            if key not in numeric or (part.stop is not None and part.stop > (source.shape(key) or (1,))[-1]):
                raise ConfigError(f"--declare {part}: expected a part of {', '.join(numeric)}; correct it")
    resampling = Resampling(hz, known, action_kind, parts)
    if action_kind != "absolute":
        _require_switches(source, [key for key in numeric if known[key] == "action"], parts)
    check = UnitsCheck(usual(source, numeric))
    for i, episode in enumerate(source.episodes(numeric)):
        check.add(i, episode)
    for each in check.findings():
        said = {d for part, _ in parts.get(each.key, ()) for d in _dims(source, part.start, part.stop, each.key)}
        wrapping = sorted(set(each.dims) - said)
        if each.name == "wraps" and wrapping:
            raise ConfigError(
                f"{source.location}: {each.key}[{wrapping[0]}] is an angle that wraps around, between whose ends "
                f"nothing lies; say --declare '{each.key}[{wrapping[0]}]=angle' (or degrees)"
            )
    return resampling


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
    """Returns declarations of actions and states whose names say that they are quaternions."""
    told = {word.partition("=")[0].partition("[")[0] for word in words}
    keys = [key for key in numeric if "quat" in key.lower() and (source.shape(key) or (1,))[-1] == 4]
    return [f"{key}=quaternion" for key in keys if key not in told]
