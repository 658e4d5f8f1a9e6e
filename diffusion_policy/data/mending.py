"""A data set written anew without what the doctor found: idle ends, bad episodes, another rate.

Episodes stream from the source into a new store, which appears in one step when it is complete; its provenance says
what was done. The source is never changed. Letters: M episodes, T steps of one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data import store
from diffusion_policy.data.doctor.idle import MARGIN, Idleness, trimmed
from diffusion_policy.data.doctor.kinds import KINDS
from diffusion_policy.data.doctor.similar import SHORT_STEPS
from diffusion_policy.data.doctor.streams import roles, usual
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.incoming import together
from diffusion_policy.data.mending_record import Done, attrs_of
from diffusion_policy.data.rates import Clock
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.resampling import ActionKind
from diffusion_policy.data.resampling_plan import resampling_of
from diffusion_policy.data.survey import survey
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import local_path

Episode = dict[str, NDArray[Any]]

DUPLICATES = "duplicates"
"""Names, beside those of findings, what `drop` takes: of episodes that are the same or nearly, all but the first."""


@dataclass(frozen=True)
class Mending:
    """What to do.

    Args:
        trim: cut idle starts and ends, but for `MARGIN` steps.
        drop: episodes to leave out, by number, by the name of a finding, or `DUPLICATES`.
        resample: rows a second of the new data set.
        control_hz: rows a second of the source, where nothing there tells.
        action_kind: what actions are, for resampling.
        declared: what turns or switches instead of moving, e.g. "pose[3:7]=quaternion", for resampling.
    """

    trim: bool = False
    drop: tuple[str, ...] = ()
    resample: float | None = None
    control_hz: float | None = None
    action_kind: ActionKind | None = None
    declared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.drop:
            if not word.isdecimal() and word != DUPLICATES and word not in KINDS:
                raise ConfigError(
                    f"--drop takes numbers of episodes, {DUPLICATES}, or what dp-inspect finds ({', '.join(KINDS)}), "
                    f"but got '{word}'"
                )
        if self.resample is None and (self.action_kind or self.declared):
            raise ConfigError("--action-kind and --declare are for --resample HZ; add it, or leave them out")


def mend(
    source: ReplayBuffer,
    out: str | Path,
    mending: Mending,
    *,
    on_steps: Callable[[int], None] = lambda _: None,
) -> tuple[ReplayBuffer, Done]:
    """Writes a data set anew; returns it, opened for reading, and what was done.

    Args:
        source: the data set.
        out: the zarr folder to make, or one file if it ends in .zip. After any failure there is nothing.
        mending: what to do.
        on_steps: called with the steps of each episode of the source that is done, for a progress bar.

    Raises:
        OutputExistsError: `out` exists.
        DataError: nothing would be left, or the source is damaged, or its rate is not known.
        ConfigError: the settings do not fit the data.
        StorageError: writing failed.
    """
    out, done = local_path(out, "DST"), Done()
    with (
        store.storage_errors(str(out), anew=True),
        store.replaceable(out, overwrite=False),
        store.staging_folder(out) as staging,
    ):
        built = staging / "zarr"
        with ReplayBuffer.create(built) as buffer:
            buffer.location = source.location  # what messages about its episodes are about
            for several in together(mended(source, mending, done, on_steps)):
                buffer.add_episodes(several)
            if not buffer.num_episodes:
                raise DataError(f"{source.location}: nothing is left ({'; '.join(done.said())}); drop less")
            buffer.update_attrs(attrs_of(source, buffer, done, _steps(mending)))
        if out.suffix == ".zip":
            store.pack_zip(built, staging / "zip")
            built = staging / "zip"
        store.replace(out, built)
    return ReplayBuffer.open(out), done


def mended(
    source: ReplayBuffer, mending: Mending, done: Done, on_steps: Callable[[int], None] = lambda _: None
) -> Iterator[Episode]:
    """Yields the episodes of a data set as they shall be.

    Args:
        source: the data set.
        mending: what to do.
        done: what was done is counted here.
        on_steps: called with the steps of each episode of the source that is done.

    Raises:
        DataError: an episode to drop is not there, or the rate is not known.
        ConfigError: the settings do not fit the data.
    """
    done.dropped |= dropped(source, mending.drop)
    numeric = [key for key, role in roles(source, source.keys()).items() if role in ("action", "state")]
    idleness = Idleness(usual(source, numeric)) if mending.trim else None
    resampling = None
    if mending.resample is not None:
        resampling = resampling_of(source, mending.resample, mending.action_kind, mending.declared)
        done.hz = mending.resample
    clock = Clock(source, mending.control_hz) if resampling else None
    for i, rows in enumerate(source.episodes()):
        count = len(next(iter(rows.values())))
        episode: Episode | None = None if i in done.dropped else dict(rows)
        if episode is not None and idleness is not None:
            start, stop = idleness.span(episode)
            if stop == 0:
                done.dropped[i], episode = "nothing ever moves", None
            else:
                start, stop = trimmed(start, stop, count, MARGIN)
                if stop - start < count:
                    done.trimmed[i] = count - (stop - start)
                    episode = cut(episode, start, stop)
        if episode is not None:
            done.kept.append(i)
            yield episode if resampling is None or clock is None else resampling(episode, clock.edges(episode, i))
        on_steps(count)


def cut(episode: Mapping[str, NDArray[Any]], start: int, stop: int) -> Episode:
    """Returns steps [start, stop) of an episode.

    An end that is cut off is `truncated`, never `terminated`: the world went on. A success that was told in what is cut
    off is told by the last step.

    Args:
        episode: {key: (T, *shape)}.
        start: first step to keep.
        stop: behind the last.
    """
    shorter = {key: values[start:stop].copy() for key, values in episode.items()}
    if stop < len(next(iter(episode.values()))):
        if "truncated" in shorter:
            shorter["truncated"][-1] = 1
        for key in {"success", "done"} & set(shorter):
            told_later = (episode[key][stop:] != 0).any(axis=0).astype(shorter[key].dtype)
            shorter[key][-1] = np.maximum(shorter[key][-1], told_later)  # flags may be of any dtype
    return shorter


def dropped(source: ReplayBuffer, words: Sequence[str]) -> dict[int, str]:
    """Returns the episodes to leave out and why; looks for what is given by name.

    Args:
        source: the data set.
        words: as in `Mending.drop`.

    Raises:
        DataError: there is no such episode.
    """
    found: dict[int, str] = {}
    named = [word for word in words if not word.isdecimal()]
    if set(named) - {"short"}:
        known = survey(source)
        found |= {i: name for name in named for i in known.episodes_of(name)}
    if "short" in named:
        found |= {int(i): "short" for i in np.flatnonzero(lengths(source.episode_ends) < SHORT_STEPS)}
    for word in words:
        if word.isdecimal():
            source.episode_slice(int(word))
            found[int(word)] = "by number"
    return found


def _steps(mending: Mending) -> dict[str, Any]:
    """Returns what a provenance says of the settings."""
    steps: dict[str, Any] = {"trim_margin": MARGIN} if mending.trim else {}
    if mending.resample is not None:
        steps["resampled"] = {
            "hz": mending.resample,
            "action_kind": mending.action_kind,
            "declared": list(mending.declared),
        }
    return steps
