"""Our episodes as a robomimic HDF5 file, which its own code trains from; `robomimic` says the layout and reads it.

robomimic has one flag for the end of an episode, `dones`: what `terminated` says, or 1 in the last step where there
is no such key. What it has no place for (`terminated` and `truncated` apart) lies beside it, where robomimic does not
look; a record in the file's root says of what form our keys were, so that they come back as they are. Without rewards
they are 0. Pictures are uint8 0-255, each a chunk, compressed without loss by what every h5py brings (LZF).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats import hdf5
from diffusion_policy.data.formats.reading import Column
from diffusion_policy.data.formats.record import NAME, Record
from diffusion_policy.data.formats.robomimic import GYM_TYPE, WHOSE, place
from diffusion_policy.data.formats.writing import TARGETS, Content, Target, is_picture, whole_pictures
from diffusion_policy.errors import DataError


def plan_robomimic(content: Content) -> Sequence[Column]:
    """Returns where each key will lie in a demonstration.

    Raises:
        DataError: there is no `action`.
        ConfigError: h5py is missing.
    """
    hdf5.library(content.where, WHOSE)
    if "action" not in content.forms:
        raise DataError(
            f"{content.where}: robomimic's files need actions, but there is no 'action' in {', '.join(content.forms)}"
        )
    keys = list(content.forms)
    notes = {key: "float -> uint8" for key, form in content.forms.items() if is_picture(form) and form[1].kind == "f"}
    return [
        Column(key, str(dtype), shape, place(key, keys), notes.get(key, ""))
        for key, (shape, dtype) in content.forms.items()
    ]


def write_robomimic(content: Content, built: Path) -> None:
    """Writes the file.

    Raises:
        DataError: pictures hold something else than whole numbers 0-255.
        StorageError: writing failed.
    """
    h5py, keys = hdf5.library(content.where, WHOSE), list(content.forms)
    with h5py.File(built, "w") as file:
        file[NAME] = Record.of(content).to_json()
        data, total, demos = file.create_group("data"), 0, []
        for i, episode in enumerate(hdf5.with_room(content.episodes, built.parent)):
            demo, steps = data.create_group(f"demo_{i}"), len(episode["action"])
            for key, values in episode.items():
                _write(demo, place(key, keys), values, content.forms[key], f"{content.where}: episode {i}: '{key}'")
            if "reward" not in episode:
                demo["rewards"] = np.zeros(steps)
            demo["dones"] = episode.get("terminated", np.arange(steps) == steps - 1).reshape(steps).astype(np.int64)
            demo.attrs["num_samples"] = steps
            demos.append(demo.name.rpartition("/")[2])
            total += steps
        data.attrs["total"] = total
        data.attrs["env_args"] = json.dumps(_env_args(content.facts), indent=4)
        for name, chosen in _filters(content.facts, len(demos)).items():
            file[f"mask/{name}"] = np.array([demos[j] for j in chosen], dtype="S")


def _write(demo: Any, path: str, values: NDArray[Any], form: Any, where: str) -> None:
    shape, _ = form
    if is_picture(form):
        pictures = whole_pictures(values, where)
        demo.create_dataset(path, data=pictures, chunks=(1, *shape), compression="lzf")
    else:
        demo.create_dataset(path, data=values.reshape(len(values), 1) if not shape and "/" in path else values)


def _env_args(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how robomimic names an environment: its own description if the data came with one, else gymnasium's."""
    told = facts.get("robomimic_env")
    if isinstance(told, dict):
        return told
    kwargs = facts.get("kwargs")
    name = str(facts.get("env_id") or "")
    return {"env_name": name, "type": GYM_TYPE, "env_kwargs": dict(kwargs) if isinstance(kwargs, Mapping) else {}}


def _filters(facts: Mapping[str, Any], count: int) -> dict[str, list[int]]:
    """Returns the filter keys {name: episodes} that the data came with, if they are of these episodes."""
    told = facts.get("filters")
    if not isinstance(told, Mapping):
        return {}
    fitting = {str(name): [int(i) for i in chosen] for name, chosen in told.items()}
    return {name: chosen for name, chosen in fitting.items() if chosen and max(chosen) < count}


TARGETS.register("robomimic")(
    Target("robomimic's HDF5 files", lambda out: out.suffix in hdf5.SUFFIXES, plan_robomimic, write_robomimic)
)
