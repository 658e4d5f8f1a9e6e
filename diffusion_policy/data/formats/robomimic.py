"""robomimic's HDF5 files (Mandlekar et al. 2021), read; `robomimic_writing` writes them.

    data/                      attributes: total, env_args (JSON: env_name, type, env_kwargs)
    data/demo_0/               attributes: num_samples, often model_file (the simulator's XML)
    data/demo_0/actions        (T, Da); rewards (T,), dones (T,), states (T, S) of the simulator
    data/demo_0/obs/<name>     (T, ...); next_obs/<name> likewise, for offline RL; pictures (T, H, W, 3) uint8
    mask/<name>                filter keys: names of demonstrations, e.g. train, valid

`obs/x` becomes `x`, `next_obs/x` becomes `next_x`. An episode counts as terminated if its last `dones` is 1, as
robomimic's own algorithms take it, and as truncated otherwise; `dones` before the last step (success that was reached
and held) end nothing here. `states` stay float64: a simulator is set to them. Letters: T steps of an episode.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_policy.data.formats import hdf5
from diffusion_policy.data.formats.reading import (
    FORMATS,
    Column,
    Episode,
    Format,
    Option,
    Reading,
    check_lengths,
    flags,
    narrowed,
    plain_name,
    stored,
)
from diffusion_policy.data.formats.record import NAME, Record
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

WHOSE = "robomimic's files"
GYM_TYPE = 2  # EnvType of robomimic; 1 is robosuite, whose names gymnasium does not know
FILTER = Option("filter", "NAME", "only the episodes of this filter key, e.g. train")
_EXACT = ("states",)  # not narrowed to float32
_NAMES = {"actions": "action", "rewards": "reward", "dones": "terminated"}


def read_robomimic(source: str, *, filter: str | None = None) -> Reading:
    """Returns the demonstrations of a file, in the order of their numbers.

    Args:
        source: its path.
        filter: name of a filter key; only its demonstrations are read. Without one all are, and what the filter keys
            say is kept in the provenance as `filters` {name: episodes}.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, lacks actions, or has no such filter key.
        ConfigError: h5py is missing.
    """
    with hdf5.opened(source, WHOSE) as file:
        demos = _demos(file, source)
        filters = _filters(file, demos, source)
        count = len(demos)
        if filter is not None:
            if filter not in filters:
                raise ConfigError(f"{source}: no filter key '{filter}', it has: {', '.join(filters) or 'none'}")
            demos = [demos[i] for i in filters[filter]]
        total = sum(_length(file, demo, source) for demo in demos)
        record = Record.from_json(file[NAME][()], source) if NAME in file else None
        paths = hdf5.arrays(file["data"][demos[0]], f"{source}: {demos[0]}")
        columns = _columns(paths, record, source)
        facts = _facts(file, source)
        attrs = [name for demo in demos[:1] for name in file["data"][demo].attrs if name != "num_samples"]
    if record is not None:
        facts = {**facts, **record.provenance}
        facts.pop("filters", None)
    if filter is None:
        facts |= {"filters": filters} if filters else {}
    else:
        facts = {**_of_some(facts, filters[filter], count), "filter": filter}
    columns += [Column(f"@{name}", "attribute", (), None, "of each demonstration, no column") for name in attrs]
    episodes = _episodes(source, demos, columns, record)
    return Reading(episodes, total, facts, tuple(columns), len(demos))


def place(key: str, keys: Sequence[str]) -> str:
    """Returns where a key of ours lies in a demonstration: "agent_pos" in "obs/agent_pos".

    Args:
        key: to place.
        keys: all of them.
    """
    own = {"action": "actions", "reward": "rewards", "states": "states"}
    if key in own:
        return own[key]
    if key in ("terminated", "truncated"):
        return key  # beside robomimic's dones, which are one flag for both
    if key.startswith(NEXT) and key.removeprefix(NEXT) in keys:
        return f"next_obs/{key.removeprefix(NEXT)}"
    return f"obs/{key}"


def _demos(file: Any, source: str) -> list[str]:
    """Returns the names of the demonstrations, sorted by number as robomimic does."""
    names = list(hdf5.groups(hdf5.groups(file, source).get("data", {}), source))
    numbers = {name: name.rpartition("_")[2] for name in names}
    strange = [name for name, number in numbers.items() if not number.isdecimal()]
    if not names or strange:
        raise DataError(
            f"{source}: expected demonstrations data/demo_0, data/demo_1 ..., but found "
            f"{', '.join(strange[:3]) or 'none'}; get the file again"
        )
    return sorted(names, key=lambda name: int(numbers[name]))


def _length(file: Any, demo: str, source: str) -> int:
    """Returns the steps of a demonstration, without reading it."""
    group = file["data"][demo]
    if "actions" not in group:
        raise DataError(f"{source}: expected 'actions' in {demo}, but it is missing; get the file again")
    if not hasattr(group["actions"], "shape"):
        raise DataError(f"{source}: 'actions' of {demo} must be an array of steps, but it is none; get the file again")
    told, steps = group.attrs.get("num_samples"), len(group["actions"])
    if told is not None and int(told) != steps:
        raise DataError(f"{source}: {demo} says {int(told)} samples, but has {steps} actions; the file is damaged")
    if not steps:
        raise DataError(f"{source}: {demo} has no steps; delete it, or leave it out with --filter")
    return steps


def _of_some(facts: Mapping[str, Any], chosen: Sequence[int], count: int) -> dict[str, Any]:
    """Returns what is known of `count` demonstrations as far as it holds for some of them."""
    seeds = facts.get("seeds")
    told = {name: value for name, value in facts.items() if name not in ("seeds", "parts")}
    if isinstance(seeds, list) and len(seeds) == count:
        told["seeds"] = [seeds[i] for i in chosen]
    return told


def _filters(file: Any, demos: Sequence[str], source: str) -> dict[str, list[int]]:
    """Returns {filter key: sorted numbers of episodes}."""
    number = {demo: i for i, demo in enumerate(demos)}
    found: dict[str, list[int]] = {}
    for name, array in hdf5.arrays(hdf5.groups(file, source).get("mask", {}), source).items():
        chosen = [each.decode() if isinstance(each, bytes) else str(each) for each in array[()].ravel().tolist()]
        unknown = [demo for demo in chosen if demo not in number]
        if unknown:
            raise DataError(f"{source}: filter key '{name}' names {unknown[0]}, which is not there; get the file again")
        if chosen:
            found[plain_name(name, source)] = sorted(number[demo] for demo in chosen)
    return found


def _facts(file: Any, source: str) -> dict[str, Any]:
    """Returns what the file says of its environment; only gymnasium's are known here by their id."""
    text = file["data"].attrs.get("env_args")
    if text is None:
        return {}
    try:
        told = json.loads(text)
        kwargs = dict(told.get("env_kwargs") or {})
        name, kind = str(told["env_name"]), int(told.get("type", 1))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{source}: its env_args are damaged ({error}); get the file again") from error
    facts: dict[str, Any] = {"env_id": name, "kwargs": kwargs} if kind == GYM_TYPE else {"robomimic_env": told}
    rate = kwargs.get("control_freq")
    return {**facts, "control_hz": float(rate)} if isinstance(rate, (int, float)) and rate > 0 else facts


def _columns(arrays: Mapping[str, Any], record: Record | None, source: str) -> list[Column]:
    """Returns what becomes of each array of a demonstration, {path within it: array}."""
    placed = {place(key, list(record.forms)): key for key in record.forms} if record is not None else {}
    taken: dict[str, str] = {"truncated": "dones"} if record is None and "dones" in arrays else {}
    columns = []
    for path, array in arrays.items():
        form = (path, str(array.dtype), tuple(array.shape[1:]))
        if record is not None:
            columns.append(Column(*form, placed.get(path), "" if path in placed else "made for robomimic"))
            continue
        if not array.shape:
            columns.append(Column(*form, None, "no array of steps"))
            continue
        key = plain_name(_key(path), source)
        if key in taken:
            raise DataError(f"{source}: '{path}' and '{taken[key]}' would both be called '{key}'; rename one")
        taken[key] = path
        note = "" if path in _EXACT else narrowed(array.dtype)
        columns.append(Column(*form, key, "of the last step; truncated where it is 0" if path == "dones" else note))
    return columns


def _key(path: str) -> str:
    """Returns our name of an array."""
    head, _, rest = path.partition("/")
    name = {"obs": rest, "next_obs": NEXT + rest}.get(head, path) if rest else path
    return _NAMES.get(path, name.replace("/", "_"))


def _episodes(source: str, demos: Sequence[str], columns: Sequence[Column], record: Record | None) -> Iterator[Episode]:
    names = {each.name: each.becomes for each in columns if each.dtype != "attribute"}
    with hdf5.opened(source, WHOSE) as file:
        for demo in demos:
            where = f"{source}: {demo}"
            arrays = hdf5.arrays(file["data"][demo], where)
            if set(arrays) != set(names):
                other = sorted(set(arrays) ^ set(names))
                raise DataError(
                    f"{where}: expected the columns of {demos[0]}, but only one of them has {', '.join(other[:5])}; "
                    f"leave it out with --filter"
                )
            found = {path: array[()] for path, array in arrays.items() if names[path] is not None}
            check_lengths({path: len(values) for path, values in found.items()}, where)
            if record is not None:
                yield record.restored({str(names[path]): values for path, values in found.items()}, where)
            else:
                yield _episode(found, names, where)


def _episode(found: Mapping[str, Any], names: Mapping[str, str | None], where: str) -> Episode:
    episode: Episode = {}
    for path, values in found.items():
        numbers = stored(values, path, where)
        episode[str(names[path])] = values if path in _EXACT else numbers
    if "reward" in episode:
        if episode["reward"].size != len(episode["action"]):
            raise DataError(f"{where}: 'rewards' must be one number a step, but has {found['rewards'].shape}")
        episode["reward"] = episode["reward"].reshape(-1).astype(np.float32)
    if "dones" in found:
        last = np.arange(len(episode["action"])) == len(episode["action"]) - 1
        done = bool(flags(found["dones"], "dones", where)[-1])
        episode |= {"terminated": last & done, "truncated": last & (not done)}
    return episode


FORMATS.register("robomimic")(
    Format("robomimic's HDF5 files", lambda source: hdf5.holds_group(source, "data"), read_robomimic, (FILTER,))
)
