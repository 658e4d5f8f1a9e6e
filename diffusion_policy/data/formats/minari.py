"""Minari data sets (Farama Foundation), read by the library itself: from a folder, or by id from where it keeps them.

An episode of T steps holds T + 1 observations there; the last one is kept as the end of `next_<key>`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.reading import FORMATS, Column, Episode, Format, Reading, flags, narrowed, stored
from diffusion_policy.data.formats.record import NAME, Record
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError, MissingFileError

_ID = re.compile(r"[\w-]+(/[\w-]+)*-v\d+")
_OWN = ("action", "reward", "terminated", "truncated")


def read_minari(source: str) -> Reading:
    """Returns the episodes of a data set; fields of `Dict` observations become keys, nested ones joined by "_".

    Args:
        source: its folder, or its id: "mujoco/hopper/medium-v0". Nothing is downloaded.

    Raises:
        MissingFileError: there is no such data set.
        DataError: it is damaged, or its observations or actions are no arrays.
        ConfigError: minari is missing.
    """
    data = _opened(source)
    _check_whole(data, source)
    if not len(data):
        raise DataError(f"{source}: expected episodes, but there are none; get the data set again")
    told = data.storage.metadata.get(NAME)
    record = None if told is None else Record.from_json(told, source)
    facts = _facts(data) if record is None else {**_facts(data), **record.provenance}
    columns = tuple(_columns(data.spec.observation_space, data.spec.action_space, record))
    return Reading(_episodes(source, data, record), int(data.total_steps), facts, columns, len(data))


def _columns(observed: Any, acted: Any, record: Record | None) -> Iterator[Column]:
    """Yields what becomes of each field."""
    for key, space in _spaces(observed, "observation").items():
        form = (str(getattr(space, "dtype", type(space).__name__)), tuple(getattr(space, "shape", None) or ()))
        if record is not None and key not in record.forms:
            yield Column(f"observations/{key}", *form, None, "made for Minari")
        elif record is not None:
            yield Column(f"observations/{key}", *form, key)
        else:
            note = "; ".join(
                filter(None, (narrowed(np.dtype(form[0])) if "float" in form[0] else "", "also next_" + key))
            )
            yield Column(f"observations/{key}", *form, key, note)
    yield Column("actions", str(acted.dtype), tuple(acted.shape or ()), "action")
    for name, key in (("rewards", "reward"), ("terminations", "terminated"), ("truncations", "truncated")):
        known = record is None or key in record.forms
        yield Column(name, "", (), key if known else None, "" if known else "made for Minari")
    yield Column("infos", "", (), None, "no observation; they differ from library to library")


def _spaces(space: Any, name: str) -> dict[str, Any]:
    """Returns the spaces of the fields by the names that `_fields` gives them."""
    if not isinstance(getattr(space, "spaces", None), Mapping):
        return {name: space}
    prefix = "" if name == "observation" else f"{name}_"
    return {
        key: each for inner in space.spaces for key, each in _spaces(space.spaces[inner], f"{prefix}{inner}").items()
    }


def _opened(source: str) -> Any:
    try:
        from minari import load_dataset
        from minari.dataset.minari_dataset import MinariDataset
    except ImportError as error:  # minari itself, or what it lacks
        raise ConfigError(
            f"{source}: Minari data sets need minari with h5py, but: {error}; pip install 'diffusion-policy[offline]'"
        ) from error
    folder = next((each for each in (Path(source), Path(source) / "data") if (each / "metadata.json").is_file()), None)
    try:
        return load_dataset(source) if folder is None else MinariDataset(folder)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{source}: no such Minari data set here; give its folder, or its id after `minari download {source}`"
        ) from error
    except Exception as error:  # a damaged description: whatever the library stumbles over
        raise DataError(f"{source}: minari cannot read it ({_line(error)}); get the data set again") from error


def _check_whole(data: Any, source: str) -> None:
    """Raises DataError where numbers of an HDF5 storage lie in other files: the library would read any file."""
    from diffusion_policy.data.formats import hdf5

    for path in sorted(Path(data.storage.data_path).glob("*.hdf5")):
        with hdf5.opened(str(path), "Minari's files") as file:
            hdf5.check_whole(file, source)


def _facts(data: Any) -> dict[str, Any]:
    """Returns what the data set says of its environment."""
    spec, space = data.spec, data.spec.action_space
    facts: dict[str, Any] = {"minari_id": spec.dataset_id, "minari_version": str(spec.minari_version)}
    if spec.env_spec is not None:
        facts |= {"env_id": spec.env_spec.id, "kwargs": _plain(spec.env_spec.kwargs)}
    if hasattr(space, "is_bounded") and space.is_bounded():
        facts["action_bounds"] = [[float(each) for each in np.ravel(bound)] for bound in (space.low, space.high)]
    return facts


def _episodes(source: str, data: Any, record: Record | None) -> Iterator[Episode]:
    episodes = data.iterate_episodes()
    while True:
        try:
            episode = next(episodes, None)
        except Exception as error:  # h5py, pyarrow and the library each have their own
            raise DataError(f"{source}: minari cannot read an episode ({_line(error)}); get it again") from error
        if episode is None:
            return
        where = f"{source}: episode {episode.id}"
        if not len(episode):
            raise DataError(f"{where} has no steps; delete it from the data set")
        found = _converted(episode, where, stored if record is None else _kept)
        if record is not None:
            yield record.restored(found, where)
            continue
        found["reward"] = found["reward"].astype(np.float32)
        if not found["terminated"][-1]:  # the recording ended there, whether it says so or not
            found["truncated"][-1] = True
        yield found


def _kept(values: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    """Returns numbers as they are: their record says what they were."""
    return values


def _converted(episode: Any, where: str, stored: Callable[[NDArray[Any], str, str], NDArray[Any]]) -> Episode:
    steps = len(episode)
    if isinstance(episode.actions, (Mapping, tuple, list)):
        raise DataError(f"{where}: expected actions of one array, but got {type(episode.actions).__name__}")
    found: Episode = {}
    for key, values in _fields(episode.observations, "observation", where).items():
        if len(values) != steps + 1 or key in _OWN:
            raise DataError(
                f"{where}: expected {steps + 1} observations '{key}' of {steps} steps, named otherwise than "
                f"{', '.join(_OWN)}, but got {len(values)}"
            )
        numbers = stored(values, key, where)
        found |= {key: numbers[:-1], NEXT + key: numbers[1:]}
    found["action"] = stored(np.asarray(episode.actions), "actions", where)
    found["reward"] = stored(np.asarray(episode.rewards), "rewards", where)
    found["terminated"] = flags(episode.terminations, "terminations", where)
    found["truncated"] = flags(episode.truncations, "truncations", where)
    if {len(values) for values in found.values()} != {steps}:
        listed = ", ".join(f"{key} {len(values)}" for key, values in found.items())
        raise DataError(f"{where}: expected columns of one length, but got {listed}; get the data set again")
    return found


def _fields(observations: Any, name: str, where: str) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an observation by name."""
    if isinstance(observations, Mapping):
        prefix = "" if name == "observation" else f"{name}_"
        nested = [_fields(values, f"{prefix}{key}", where) for key, values in observations.items()]
        fields = {key: values for each in nested for key, values in each.items()}
        if len(fields) != sum(map(len, nested)):
            raise DataError(f"{where}: two fields of its observations would be called alike: {', '.join(fields)}")
        return fields
    if not isinstance(observations, np.ndarray):
        raise DataError(f"{where}: expected '{name}' to be an array, but got {type(observations).__name__}")
    return {name: observations}


def _plain(values: Any) -> Any:
    """Returns arguments of an environment as plain values; what is none becomes a word."""
    if isinstance(values, Mapping):
        return {str(key): _plain(each) for key, each in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(each) for each in values]
    return values if values is None or isinstance(values, (bool, int, float, str)) else str(values)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _recognizes(source: str) -> bool:
    path = Path(source)
    if path.exists():
        return any((path / name).is_file() for name in ("metadata.json", "data/metadata.json"))
    return _ID.fullmatch(source) is not None


FORMATS.register("minari")(Format("Minari data sets", _recognizes, read_minari))
