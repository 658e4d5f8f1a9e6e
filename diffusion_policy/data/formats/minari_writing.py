"""Our episodes as a Minari data set, written by the library itself; `minari` reads it.

Minari keeps T + 1 observations of T steps: the last one is what `next_<key>` says of the last step, or the last one
twice where there is no such key. `next_<key>` must follow from one row to the next, for Minari has no place for
anything else. All keys but action, reward and the ends are fields of the observation: a `Dict`, or a `Box` where the
only one is `observation`. Without rewards they are 0; without ends, episodes are truncated at their last step.
Pictures are stored as uint8 0-255, without the JPEG of Minari, which would lose some of them. A record in the
metadata says of what form our keys were, so that they come back as they are. Letters: T steps of an episode.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats import hdf5
from diffusion_policy.data.formats.reading import Column, Episode, Option
from diffusion_policy.data.formats.record import NAME, Record
from diffusion_policy.data.formats.writing import TARGETS, Content, Target, is_picture, whole_pictures
from diffusion_policy.data.incoming import KeyForm
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

MINARI_ID = Option("minari_id", "ID", "name of the data set: group/name-v0 (default: by the name of DST)")
_ID = re.compile(r"(\w[\w-]*/)*\w[\w-]*-v\d+")
_OWN = {"action": "actions", "reward": "rewards", "terminated": "terminations", "truncated": "truncations"}
_ROOT = "MINARI_DATASETS_PATH"


def plan_minari(content: Content, *, minari_id: str | None = None) -> Sequence[Column]:
    """Returns what Minari calls each key.

    Raises:
        DataError: there is no `action`, or nothing that is observed.
        ConfigError: minari is missing, or the id is none.
    """
    _library(content.where)
    if minari_id is not None and not _ID.fullmatch(minari_id):
        raise ConfigError(f"--minari-id must be like group/name-v0, but got '{minari_id}'")
    observed = _observed(content.forms)
    if "action" not in content.forms or not observed:
        raise DataError(
            f"{content.where}: Minari needs 'action' and what is observed, but there is only {', '.join(content.forms)}"
        )
    placed = []
    for key, (shape, dtype) in content.forms.items():
        name, note = _OWN.get(key, f"observations/{key}"), ""
        if key.startswith(NEXT) and key.removeprefix(NEXT) in observed:
            name = f"observations/{key.removeprefix(NEXT)}"
        elif key in observed and NEXT + key not in content.forms:
            note = "the last one twice"
        if is_picture((shape, dtype)) and dtype != np.uint8:
            note = "; ".join(filter(None, (note, f"{dtype} -> uint8")))
        placed.append(Column(key, str(dtype), shape, name, note))
    return placed


def write_minari(content: Content, built: Path, *, minari_id: str | None = None) -> None:
    """Writes the folder of a data set, with data/main_data.hdf5 and data/metadata.json.

    Raises:
        DataError: `next_<key>` is not what the next row shows.
        StorageError: writing failed.
    """
    minari = _library(content.where)
    content = replace(content, episodes=hdf5.with_room(content.episodes, built.parent))
    name = minari_id or _id_of(built.name)
    observed = _observed(content.forms)
    spaces = {key: _space(content.forms[key]) for key in observed}
    single = observed == ["observation"]
    from gymnasium.spaces import Dict

    with warnings.catch_warnings(), _datasets_path((built.parent / "minari").absolute()):
        warnings.simplefilter("ignore")  # about what else one could tell of it
        data = minari.create_dataset_from_buffers(
            name,
            buffer=_buffers(content, observed, single=single),
            observation_space=spaces["observation"] if single else Dict(spaces),
            action_space=_action_space(content),
            description=f"written by dp-convert from {content.facts['converted_from']['source']}",
            data_format="hdf5",
            jpeg_encoding=False,
        )
        spec = _env_spec(content.facts)
        told = {} if spec is None else {"env_spec": spec}
        data.storage.update_metadata({**told, NAME: Record.of(content).to_json()})
    (built.parent / "minari" / name).rename(built)


def _library(where: str) -> Any:
    try:
        import h5py  # noqa: F401 (minari imports it when it is used)
        import minari
    except ImportError as error:
        raise ConfigError(
            f"{where}: Minari data sets need minari with h5py, but: {error}; pip install 'diffusion-policy[offline]'"
        ) from error
    return minari


@contextmanager
def _datasets_path(folder: Path) -> Iterator[None]:
    """Lets the library keep its data sets in a folder, absolute: it joins a relative one with itself.

    It has no argument for that, only an environment variable.
    """
    before = os.environ.get(_ROOT)
    os.environ[_ROOT] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT]
        else:
            os.environ[_ROOT] = before


def _id_of(name: str) -> str:
    """Returns an id by the name of a folder."""
    plain = re.sub(r"[^\w-]+", "-", name).strip("-") or "data"
    return plain if _ID.fullmatch(plain) else f"{plain}-v0"


def _observed(forms: Mapping[str, KeyForm]) -> list[str]:
    """Returns the keys that are fields of the observation."""
    fields = [key for key in forms if key not in _OWN]
    following = [key for key in fields if key.startswith(NEXT) and key.removeprefix(NEXT) in fields]
    return [key for key in fields if key not in following]


def _space(form: KeyForm, low: float = -np.inf, high: float = np.inf) -> Any:
    from gymnasium.spaces import Box, MultiBinary

    shape, dtype = form[0] or (1,), np.dtype(np.uint8) if is_picture(form) else form[1]
    if dtype.kind == "b":
        return MultiBinary(shape)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return Box(limits.min, limits.max, shape, dtype.type)
    return Box(low, high, shape, dtype.type)


def _action_space(content: Content) -> Any:
    """Returns the space of actions, with the bounds that the provenance knows."""
    form = content.forms["action"]
    bounds = content.facts.get("action_bounds")
    if form[1].kind == "f" and bounds and len(np.ravel(bounds[0])) == int(np.prod(form[0] or (1,))):
        from gymnasium.spaces import Box

        low, high = (np.asarray(bound, form[1]).reshape(form[0] or (1,)) for bound in bounds)
        return Box(low, high, dtype=form[1].type)
    return _space(form)


def _env_spec(facts: Mapping[str, Any]) -> str | None:
    """Returns gymnasium's description of the environment as text, None where it is not registered.

    A data set may name any module ("module:Name-v0"); it is not imported for that. `dp-convert --env ID` does.
    """
    import gymnasium as gym

    known = gym.registry.get(str(facts.get("env_id") or "").rpartition(":")[2])
    if known is None:
        return None
    spec = deepcopy(known)
    spec.kwargs.update(facts.get("kwargs") or {})
    try:
        return str(spec.to_json())
    except (ValueError, TypeError):  # arguments that are no JSON
        return None


def _buffers(content: Content, observed: Sequence[str], *, single: bool) -> Iterator[Any]:
    """Yields the library's episodes, one by one."""
    from minari.data_collector import EpisodeBuffer

    for i, episode in enumerate(content.episodes):
        where, steps = f"{content.where}: episode {i}", len(episode["action"])
        rows = {key: _rows(episode, key, content.forms[key], where) for key in observed}
        last = np.arange(steps) == steps - 1
        ended = episode.get("terminated", np.zeros(steps, bool)).reshape(steps).astype(bool)
        cut = episode.get("truncated", last & ~ended).reshape(steps).astype(bool)
        yield EpisodeBuffer(
            id=i,
            observations=rows["observation"] if single else rows,
            actions=episode["action"] if episode["action"].ndim > 1 else episode["action"][:, None],
            rewards=episode.get("reward", np.zeros(steps, np.float32)).reshape(steps),
            terminations=ended,
            truncations=cut,
        )


def _rows(episode: Episode, key: str, form: KeyForm, where: str) -> NDArray[Any]:
    """Returns (T + 1, ...) observations of a key."""
    seen = episode[key]
    after = episode.get(NEXT + key)
    if after is not None and not np.array_equal(after[:-1], seen[1:]):
        raise DataError(
            f"{where}: '{NEXT}{key}' tells of something else than the following step shows, which Minari cannot hold; "
            f"split the episode there"
        )
    rows = np.concatenate([seen, seen[-1:] if after is None else after[-1:]])
    if is_picture(form):
        return whole_pictures(rows, f"{where}: '{key}'")
    rows = rows if form[0] else rows[:, None]
    return rows.astype(np.int8) if form[1].kind == "b" else rows


TARGETS.register("minari")(
    Target("Minari data sets", lambda out: False, plan_minari, write_minari, (MINARI_ID,)),
)
