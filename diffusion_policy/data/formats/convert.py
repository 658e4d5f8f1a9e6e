"""A data set of one format written as another: planned first, written in one step when it is complete."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from diffusion_policy.data import store
from diffusion_policy.data.formats import d4rl, lerobot, minari, ogbench, ours, robomimic, robomimic_writing  # noqa: F401 (they register themselves)
from diffusion_policy.data.formats.reading import FORMATS, Column, Episode, Format, Reading, plain_name
from diffusion_policy.data.formats.writing import TARGETS, Content, Target, rate_of
from diffusion_policy.data.incoming import KeyForm, checked_episode
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, MissingFileError, OutputExistsError
from diffusion_policy.paths import BUNDLED_PREFIX, resolve_dataset, results_in
from diffusion_policy.versions import installed_versions


class Transform(Protocol):
    """Changes episodes on their way.

    Attributes:
        notes: {key: what is done to it}.
    """

    notes: Mapping[str, str]

    def __call__(self, episode: Episode, where: str) -> Episode:
        """Returns the episode as it shall be; `where` is for messages."""


@dataclass(frozen=True)
class Conversion:
    """A conversion that is ready to be done: the source is open, nothing is written.

    Args:
        source: as the user named it.
        source_format: its name.
        out: the file or folder to make.
        target_format: its name.
        columns: of the source, and our keys.
        placed: our keys, and what the target calls them.
        content: what is written, once.
        options: of the target.
    """

    source: str
    source_format: str
    out: Path
    target_format: str
    columns: Sequence[Column]
    placed: Sequence[Column]
    content: Content
    options: Mapping[str, Any]

    def write(self, on_steps: Callable[[int], None] | None = None) -> "Written":
        """Writes it; after any failure nothing is left.

        Args:
            on_steps: called with the steps of each episode that was written, for a progress bar.

        Raises:
            OutputExistsError: `out` exists.
            DataError: the source turns out to be damaged, or to hold what a data set must not, such as NaN.
            StorageError: writing failed.
        """
        counted = _Counted(self.content.episodes, on_steps)
        content = replace(self.content, episodes=iter(counted))
        with (
            results_in(self.out.parent),
            store.storage_errors(str(self.out)),
            store.replaceable(self.out, overwrite=False),
            store.staging_folder(self.out) as staging,
        ):
            built = staging / self.out.name
            TARGETS.get(self.target_format).write(content, built, **self.options)
            store.replace(self.out, built)
        return Written(self.out, self.target_format, counted.episodes, counted.steps)


@dataclass(frozen=True)
class Written:
    """What came of a conversion.

    Args:
        path: that was made.
        format: its name.
        num_episodes: M.
        num_steps: N.
    """

    path: Path
    format: str
    num_episodes: int
    num_steps: int


def guess_format(source: str) -> str:
    """Returns the name of the format that a source looks like, by its suffix or content.

    Raises:
        MissingFileError: there is nothing that could look like one.
        ConfigError: it looks like none; lists the known ones.
    """
    for name in FORMATS:
        if FORMATS.get(name).recognizes(source):
            return name
    if not Path(source).exists():
        raise MissingFileError(f"{source} does not exist; give a data set of another format")
    known = ", ".join(f"{name} ({FORMATS.get(name).what})" for name in FORMATS)
    raise ConfigError(f"{source} looks like none of the known formats; say which with --format: {known}")


def guess_target(out: Path) -> str:
    """Returns the name of the format that a place to write to looks like, zarr where it says nothing."""
    return next((name for name in TARGETS if TARGETS.get(name).recognizes(out)), "zarr")


def prepare(
    source: str,
    out: str | Path,
    *,
    name: str | None = None,
    to: str | None = None,
    transforms: Sequence[Transform] = (),
    control_hz: float | None = None,
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Conversion:
    """Returns a conversion that is ready to be shown or done; of the data, the first episode is read.

    Args:
        source: a path, package://NAME, or an id that its format knows.
        out: the file or folder to make.
        name: of the source's format; None to guess.
        to: the name of the format to write; None to guess by `out`.
        transforms: of the episodes, one after another.
        control_hz: steps a second, where the source does not tell.
        facts: what is known beside the source, for the provenance: env_id, action_bounds.
        options: of the two formats (`Format.options`, `Target.options`); None is as not given.

    Raises:
        OutputExistsError: `out` exists.
        MissingFileError: there is no source.
        DataError: the source is damaged, lacks something, or the target cannot hold it.
        ConfigError: a format is unknown, a library is missing, an option is of no use.
    """
    out = Path(out)
    if out.exists():
        raise OutputExistsError(f"{out} already exists; choose another place")
    place = str(resolve_dataset(source)) if source.startswith(BUNDLED_PREFIX) else source
    name, to = name or guess_format(place), to or guess_target(out)
    reader, target = FORMATS.get(name), TARGETS.get(to)
    given = {key: value for key, value in options.items() if value is not None}
    _check_options(given, reader, target)
    reading = reader.read(place, **_taken(given, reader))
    provenance = _provenance(reading, source, name, facts or {}, control_hz)
    episodes = _transformed(reading.episodes, transforms, source)
    first = next(episodes, None)
    if first is None:
        raise DataError(f"{source}: expected episodes with steps, but there are none; get the data set again")
    first = checked_episode(first, {}, f"{source}: episode 0")
    forms = {key: (values.shape[1:], values.dtype) for key, values in first.items()}
    rest = _checked(chain([first], episodes), forms, source)
    content = Content(rest, forms, reading.num_steps, reading.num_episodes, provenance, source)
    taken = _taken(given, target)
    placed = target.plan(content, **taken)
    columns = _noted(reading, first, transforms)
    return Conversion(source, name, out, to, columns, placed, content, taken)


def translate(
    source: str,
    out: str | Path,
    *,
    on_start: Callable[[int], None] | None = None,
    on_steps: Callable[[int], None] | None = None,
    **settings: Any,
) -> Written:
    """Writes a data set of any known format as another; what dp-convert does.

    Args:
        source: a path, package://NAME, or an id that its format knows.
        out: the file or folder to make; after any failure there is nothing.
        on_start: called with the number of steps to come, for a progress bar.
        on_steps: called with the steps of each episode written.
        settings: of `prepare`.

    Raises:
        DiffusionPolicyError: as `prepare` and `Conversion.write` do.
    """
    conversion = prepare(source, out, **settings)
    if on_start is not None:
        on_start(conversion.content.num_steps)
    return conversion.write(on_steps)


def convert(source: str, out: str | Path, **settings: Any) -> ReplayBuffer:
    """Writes a data set of another format as ours; returns it, opened for reading.

    Args:
        source: a path, package://NAME, or an id that its format knows.
        out: the zarr folder to make, or one file if it ends in .zip. After any failure there is nothing.
        settings: of `translate`.

    Raises:
        DiffusionPolicyError: as `translate` does.
    """
    return ReplayBuffer.open(translate(source, out, **{**settings, "to": "zarr"}).path)


def _check_options(given: Mapping[str, Any], reader: Format, target: Target) -> None:
    known = {option.name: option for option in (*reader.options, *target.options)}
    for name in given:
        if name not in known:
            flag = "--" + name.replace("_", "-")
            takes = ", ".join(option.flag for option in known.values()) or "no such option"
            raise ConfigError(
                f"{flag} is of no use from {reader.what} to {target.what}, which take {takes}; leave {flag} out"
            )


def _taken(given: Mapping[str, Any], side: Format | Target) -> dict[str, Any]:
    return {option.name: given[option.name] for option in side.options if option.name in given}


def _provenance(
    reading: Reading, source: str, name: str, facts: Mapping[str, Any], control_hz: float | None
) -> dict[str, Any]:
    """Returns what the new data set says of its origin; the source's own is kept, its command and versions are not."""
    origin: dict[str, Any] = {"format": name, "source": Path(source).name}
    if "converted_from" in reading.facts:
        origin["before"] = reading.facts["converted_from"]
    told = rate_of(reading.facts)
    if control_hz is not None:
        if not control_hz > 0:
            raise ConfigError(f"--control-hz must be above 0, but got {control_hz:g}")
        if told is not None and told != control_hz:
            raise ConfigError(
                f"{source} says {told:g} steps a second, but --control-hz says {control_hz:g}; leave it out"
            )
        facts = {**facts, "control_hz": control_hz}
    return {
        **({"kwargs": {}} if "env_id" in facts else {}),  # unless the source tells some
        **reading.facts,
        **facts,
        "converted_from": origin,
        "versions": installed_versions(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _transformed(episodes: Iterator[Episode], transforms: Sequence[Transform], where: str) -> Iterator[Episode]:
    for i, episode in enumerate(episodes):
        for transform in transforms:
            episode = transform(episode, f"{where}: episode {i}")  # noqa: PLW2901
        for key in episode:
            plain_name(key, where)
        yield episode


def _checked(episodes: Iterator[Episode], forms: Mapping[str, KeyForm], where: str) -> Iterator[Episode]:
    """Yields episodes of which every one has the forms of the first."""
    for i, episode in enumerate(episodes):
        yield checked_episode(episode, forms, f"{where}: episode {i}")


def _noted(reading: Reading, first: Episode, transforms: Sequence[Transform]) -> list[Column]:
    """Returns the source's columns with what the transforms do to them."""
    columns = reading.columns or [
        Column(key, str(values.dtype), values.shape[1:], key) for key, values in first.items()
    ]
    notes = {key: note for transform in transforms for key, note in transform.notes.items()}
    return [
        Column(
            each.name, each.dtype, each.shape, each.becomes, "; ".join(filter(None, (each.note, notes[each.becomes])))
        )
        if each.becomes in notes
        else each
        for each in columns
    ]


class _Counted:
    """Episodes, counted when the next one is asked for: by then the one before is written.

    Args:
        episodes: to count.
        on_steps: called with the steps of each.
    """

    def __init__(self, episodes: Iterator[Episode], on_steps: Callable[[int], None] | None) -> None:
        self._source, self._on_steps = episodes, on_steps
        self.episodes = self.steps = 0

    def __iter__(self) -> Iterator[Episode]:
        for episode in self._source:
            steps = len(next(iter(episode.values())))
            yield episode
            self.episodes += 1
            self.steps += steps
            if self._on_steps is not None:
                self._on_steps(steps)
