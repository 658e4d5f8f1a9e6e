"""Which feature of a LeRobot data set each key of ours becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.data.doctor.streams import role_of
from diffusion_policy.data.formats.lerobot.layout import ENVIRONMENT, MADE, STATE, TASK, Form, is_rgb, there
from diffusion_policy.data.formats.reading import Column
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

IMAGE = "image"
_STATES = ("state", "agent_pos", "observation")  # what is the robot's, unless --state says
_ENVIRONMENTS = ("environment_state", "keypoints", "keypoint")
_DTYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


@dataclass(frozen=True)
class Feature:
    """A column of the data files.

    Args:
        name: of LeRobot's.
        dtype: a NumPy name, or "image".
        keys: of ours, whose numbers stand in it side by side; one, but for state vectors.
        sizes: numbers of a step, of each key.
        shape: of pictures.
    """

    name: str
    dtype: str
    keys: tuple[str, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, ...] = ()

    def told(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what info.json says of it.

        Args:
            names: {key: names of its numbers}, where they are known.
        """
        if self.dtype == IMAGE:
            return {"dtype": IMAGE, "shape": list(self.shape), "names": ["height", "width", "channels"]}
        return {"dtype": self.dtype, "shape": [sum(self.sizes)], "names": self._names(names)}

    def _names(self, known: Mapping[str, Any]) -> list[str] | None:
        found: list[str] = []
        for key, size in zip(self.keys, self.sizes, strict=True):
            names = known.get(key)
            fitting = names if isinstance(names, (list, tuple)) and len(names) == size else None
            found += [f"{key}_{i}" for i in range(size)] if fitting is None else map(str, fitting)
        return found if self.sizes != (1,) or self.keys[0] in known else None


def features(forms: Mapping[str, Form], state: str | None, environment: str | None, where: str) -> list[Feature]:
    """Returns the features that our keys become, in their order; pictures of what follows a step become none.

    Without `state`, `observation.state` is the first of `state`, `agent_pos`, `observation` that there is, else the
    only vector of observations; without `environment`, the other is the first of `environment_state`, `keypoints`,
    `keypoint`.

    Args:
        forms: {key: (shape of a step, dtype)}.
        state: keys for `observation.state`, comma-separated.
        environment: likewise, for `observation.environment_state`.
        where: the source, for messages.

    Raises:
        ConfigError: such a key is missing, or no vector of floats.
        DataError: two keys would get the same name, or LeRobot has no such dtype.
    """
    vectors = [
        key for key, form in forms.items() if form[1].kind == "f" and there(key, form, forms) == f"observation.{key}"
    ]
    chosen = {
        STATE: _chosen(state, "--state", _STATES, vectors, forms, where),
        ENVIRONMENT: _chosen(environment, "--environment-state", _ENVIRONMENTS, vectors, forms, where),
    }
    seen = [key for key in vectors if role_of(key, *forms[key]) == "state"]  # clocks and what comes later are none
    if not chosen[STATE] and len(left := [key for key in seen if key not in chosen[ENVIRONMENT]]) == 1:
        chosen[STATE] = left
    if twice := set(chosen[STATE]) & set(chosen[ENVIRONMENT]):
        raise ConfigError(f"{where}: '{min(twice)}' can be of one state only; leave it out of the other")
    made = [_joined(name, keys, forms) for name, keys in chosen.items() if keys]
    taken = {key for feature in made for key in feature.keys}
    made += [
        _single(key, form, forms, where)
        for key, form in forms.items()
        if key not in taken and key != TASK and not follows(key, forms)
    ]
    names = [feature.name for feature in made]
    for name in names:
        if names.count(name) > 1 or name in (*MADE, TASK):
            raise DataError(f"{where}: two keys would be called '{name}' by LeRobot; rename or leave out one")
    return sorted(made, key=lambda feature: feature.name)


def follows(key: str, forms: Mapping[str, Form]) -> bool:
    """Returns whether a key holds pictures of what followed each step; LeRobot's policies would take them as seen."""
    seen = key.removeprefix(NEXT)
    return (
        key != seen
        and seen in forms
        and is_rgb(forms[key])
        and is_rgb(forms[seen])
        and (forms[key][0] == forms[seen][0])
    )


def columns(found: Sequence[Feature], forms: Mapping[str, Form]) -> list[Column]:
    """Returns what becomes of each key, for the preview."""
    place = {key: feature for feature in found for key in feature.keys}
    return [_column(key, shape, dtype, place.get(key)) for key, (shape, dtype) in forms.items()]


def _column(key: str, shape: tuple[int, ...], dtype: np.dtype[Any], feature: Feature | None) -> Column:
    if key == TASK:
        return Column(key, str(dtype), shape, TASK)
    if feature is None:
        return Column(key, str(dtype), shape, "meta/", "beside the frames, where it is not the next one")
    notes = []
    if feature.dtype == IMAGE:
        notes.append("PNG" if dtype == np.uint8 else "float -> uint8, PNG")
    if len(feature.keys) > 1:
        start = sum(feature.sizes[: feature.keys.index(key)])
        notes.append(f"numbers {start}:{start + int(np.prod(shape))}")
    if feature.dtype == "float64":
        notes.append("LeRobot's networks take float32")
    if feature.name == f"observation.{key}" and feature.name not in (STATE, ENVIRONMENT) and dtype.kind == "f":
        notes.append("LeRobot's policies read observation.state only, --state chooses")
    return Column(key, str(dtype), shape, feature.name, "; ".join(notes))


def _chosen(
    told: str | None, flag: str, usual: Sequence[str], vectors: Sequence[str], forms: Mapping[str, Form], where: str
) -> list[str]:
    if told is None:
        return [key for key in usual if key in vectors][:1]
    keys = [key.strip() for key in told.split(",")]
    for key in keys:
        if key not in vectors or keys.count(key) > 1:
            raise ConfigError(
                f"{where}: {flag} must name vectors of floats that are observed, each once, but got '{key}'; "
                f"there are: {', '.join(vectors) or 'none'}"
            )
    return keys


def _joined(name: str, keys: Sequence[str], forms: Mapping[str, Form]) -> Feature:
    dtype = np.result_type(*(forms[key][1] for key in keys))
    return Feature(name, dtype.name, tuple(keys), tuple(int(np.prod(forms[key][0])) for key in keys))


def _single(key: str, form: Form, forms: Mapping[str, Form], where: str) -> Feature:
    shape, dtype = form
    name, size = there(key, form, forms), int(np.prod(shape))
    if name.startswith("observation.images.") and is_rgb(form):
        return Feature(name, IMAGE, (key,), (size,), shape)
    if dtype.name not in _DTYPES or not size:
        raise DataError(f"{where}: LeRobot has no room for '{key}', {dtype} of shape {shape}; leave it out")
    return Feature(name, dtype.name, (key,), (size,))
