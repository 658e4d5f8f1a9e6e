"""Demonstrations drawn again: recorded states become the pictures that an environment's cameras would have seen.

An environment that can offers `env.unwrapped.observe(obs)` -> observation, where `obs` is {key: array} of one recorded
step, whatever keys the data set has. Letters: T steps of an episode.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ObsSpec
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError, RenderError
from diffusion_policy.paths import local_path
from diffusion_policy.processes import end_with_parent
from diffusion_policy.rates import told_rate
from diffusion_policy.registry import import_plugins
from diffusion_policy.rollout.environments import Env, check_offers, make_env
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.provenance import usable_cores
from diffusion_policy.settings import plain
from diffusion_policy.versions import installed_versions

Episode = dict[str, NDArray[Any]]

_PICTURE_AXES = 3
_AHEAD = 4  # episodes a process may be ahead of the writer: more would only fill the memory


@dataclass(frozen=True)
class Drawing:
    """What draws: an environment and those of its observations that are kept.

    Args:
        env_id: e.g. "diffusion_policy_envs:PushT-v0".
        env_kwargs: its arguments: which cameras, which sizes.
        keys: observations to keep.
        plugins: modules that register it.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    keys: tuple[str, ...]
    plugins: tuple[str, ...] = ()


def rerender(
    source: str | Path,
    drawing: Drawing,
    obs_spec: ObsSpec,
    out: str | Path,
    *,
    workers: int | None = None,
    resume: bool = False,
    progress: bool = True,
) -> ReplayBuffer:
    """Writes a data set with the numbers of `source` and pictures of its states; returns it, opened for reading.

    Actions and all other numbers are copied under their own names; recorded pictures are left out. An episode is
    written whole or not at all.

    Args:
        source: the demonstrations.
        drawing: what draws.
        obs_spec: the observations that are wanted; the environment must offer them in these shapes.
        out: the zarr folder to make.
        workers: processes that draw; as many as there are cores when None.
        resume: go on where an interrupted one stopped.
        progress: shows a bar with ETA.

    Raises:
        ObservationError: the environment does not offer an observation, or in another shape.
        ConfigError: it cannot observe recorded steps, or `out` was begun otherwise.
        DataError: a recorded step does not say how things stood.
        OutputExistsError: `out` exists and `resume` is not set.
        RenderError: a process that draws died.
    """
    out = local_path(out)
    if out.exists() and not resume:
        raise OutputExistsError(f"{out} exists; choose another out=, or resume=true to go on with it")
    with ReplayBuffer.open(source) as recorded:
        if not _numbers(recorded):
            raise DataError(
                f"{recorded.location}: expected numbers that say how things stood, but it has only pictures"
            )
        rate = told_rate(recorded.attrs.get("provenance"))
        provenance = {**_described(drawing, obs_spec), "control_hz": rate, "source": _origin(recorded)}
        with _opened(out, provenance) as buffer, ProgressBar("render", recorded.num_steps, enabled=progress) as bar:
            done = int(buffer.num_steps)
            bar.start_at(done)
            try:
                for episode in _drawn(recorded, drawing, obs_spec, buffer.num_episodes, workers or usable_cores()):
                    buffer.add_episode(episode)
                    done += len(next(iter(episode.values())))
                    bar.update(done)
            finally:
                if buffer.num_episodes == 0:  # nothing to go on with
                    buffer.close()
                    shutil.rmtree(out)
    return ReplayBuffer.open(out)


def _described(drawing: Drawing, obs_spec: ObsSpec) -> dict[str, Any]:
    """Returns the provenance of what an environment draws, after checking that it can."""
    env = make_env(drawing.env_id, drawing.env_kwargs)
    try:
        check_offers(env, drawing.env_id, obs_spec)
        if not callable(getattr(env.unwrapped, "observe", None)):
            raise ConfigError(
                f"{drawing.env_id} cannot draw recorded steps: expected a method observe(obs) -> observation of its "
                f"{type(env.unwrapped).__name__}, but it has none; add one that takes {{key: array}} of one step"
            )
        return {
            "env_id": drawing.env_id,
            "kwargs": plain(dict(drawing.env_kwargs)),
            "renderer": getattr(env.unwrapped, "renderer", None),
            "versions": installed_versions(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
    finally:
        env.close()


def _origin(recorded: ReplayBuffer) -> dict[str, Any]:
    numbers = _numbers(recorded)
    return {
        "digest": recorded.digest(numbers),
        "keys": numbers,
        "provenance": plain(recorded.attrs.get("provenance") or dict(recorded.attrs)),
    }


def _numbers(recorded: ReplayBuffer) -> list[str]:
    """Returns the keys that are no pictures."""
    return [key for key in recorded.keys() if len(recorded.shape(key)) < _PICTURE_AXES]  # noqa: SIM118


def _opened(out: Path, provenance: dict[str, Any]) -> ReplayBuffer:
    """Returns a new buffer, or the interrupted one after checking that it was begun in the same way."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return ReplayBuffer.create(out, attrs={"provenance": provenance})
    with ReplayBuffer.open(out) as begun:
        before = begun.attrs.get("provenance")
    for name in ("env_id", "kwargs", "renderer", "source"):
        had = before.get(name) if isinstance(before, Mapping) else None
        if had != provenance[name]:
            raise ConfigError(
                f"{out} was begun with another {name}; resume with the same settings, or choose another out="
            )
    return ReplayBuffer.open(out, mode="a")


def _drawn(recorded: ReplayBuffer, drawing: Drawing, obs_spec: ObsSpec, first: int, workers: int) -> Iterator[Episode]:
    """Yields the episodes from `first` on, with their pictures, in order; other processes draw them."""
    shapes = {key: obs_spec[key].shape for key in drawing.keys}
    numbers = _numbers(recorded)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(drawing,))
    waiting: list[tuple[Episode, Future[Episode]]] = []
    try:
        for i in range(first, recorded.num_episodes):
            episode = recorded.get_episode(i, numbers)
            waiting.append((episode, pool.submit(_draw, episode, shapes, f"{recorded.location}: episode {i}")))
            if len(waiting) > _AHEAD * workers:
                yield _joined(*waiting.pop(0))
        while waiting:
            yield _joined(*waiting.pop(0))
    except BrokenProcessPool as error:
        raise RenderError(
            f"a process that draws {drawing.env_id} died (a broken GL?); what was drawn is kept: resume=true goes on, "
            f"workers=1 needs less memory"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _joined(numbers: Episode, pictures: Future[Episode]) -> Episode:
    return {**numbers, **pictures.result()}


class _Painter:
    """The environment of a process that draws."""

    env: Env


def _begin(drawing: Drawing) -> None:
    """Makes the environment, once in a process."""
    end_with_parent()
    import_plugins(drawing.plugins)
    _Painter.env = make_env(drawing.env_id, drawing.env_kwargs)


def _draw(episode: Episode, shapes: Mapping[str, tuple[int, ...]], where: str) -> Episode:
    """Returns the pictures (T, H, W, 3) of an episode.

    Raises:
        DataError: the environment raised, or gave something other than such pictures.
    """
    env = _Painter.env.unwrapped
    steps = range(len(next(iter(episode.values()))))
    try:
        seen = [env.observe({key: values[step] for key, values in episode.items()}) for step in steps]  # type: ignore[attr-defined]
        pictures = {key: np.stack([obs[key] for obs in seen]) for key in shapes}
    except Exception as error:  # somebody's environment; its own kind of exception may not exist in the parent
        raise DataError(f"{where} cannot be drawn: {type(error).__name__}: {error}") from None
    for key, shape in shapes.items():
        got = pictures[key]
        if got.dtype != np.uint8 or got.shape[1:] != shape:
            raise DataError(
                f"{where}: {type(env).__name__}.observe(obs) must give '{key}' as {shape} uint8, but gave "
                f"{got.shape[1:]} {got.dtype}; correct the environment"
            )
    return pictures
