"""A data set of one format written as another: planned here, done by `conversion`."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from diffusion_policy.data.formats import (  # noqa: F401 (they register themselves)
    d4rl,
    dppo,
    folder,
    lerobot,
    minari,
    minari_writing,
    ogbench,
    ours,
    robomimic,
    robomimic_writing,
    umi,
)
from diffusion_policy.data.formats.conversion import Conversion, Written
from diffusion_policy.data.formats.leaving_out import LEFT_OUT
from diffusion_policy.data.formats.reading import FORMATS, Column, Episode, Format, Reading, plain_name
from diffusion_policy.data.formats.writing import TARGETS, Content, Target
from diffusion_policy.data.incoming import KeyForm, checked_episode
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, MissingFileError, OutputExistsError
from diffusion_policy.paths import BUNDLED_PREFIX, is_remote, local_path, resolve_dataset
from diffusion_policy.rates import told_rate
from diffusion_policy.versions import installed_versions

_SAME_RATE = 0.01  # of a rate: measured ones are not round


class Transform(Protocol):
    """Changes episodes on their way."""

    @property
    def notes(self) -> Mapping[str, str]:
        """{key: what is done to it}; complete after the first episode."""

    @property
    def keeps_units(self) -> bool:
        """Whether numbers that stay mean what they meant, one by one."""

    def __call__(self, episode: Episode, where: str) -> Episode:
        """Returns the episode as it shall be; `where` is for messages."""


def guess_format(source: str) -> str:
    """Returns the name of the format that a source looks like, by its suffix or content.

    Raises:
        MissingFileError: there is nothing that could look like one.
        ConfigError: it looks like none; lists the known ones.
    """
    if is_remote(source):
        return "zarr"
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
    out = local_path(out, "DST")
    if out.exists():
        raise OutputExistsError(f"{out} already exists; choose another place")
    place = str(resolve_dataset(source)) if source.startswith(BUNDLED_PREFIX) else source
    name, to = name or guess_format(place), to or guess_target(out)
    if is_remote(place) and name != "zarr":
        raise ConfigError(f"{place}: from addresses our own zarr is read only, not {name}; fetch it, and give the path")
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
    notes = _notes(transforms)
    _note_changes(provenance, notes, {key for each in transforms if not each.keeps_units for key in each.notes})
    content = Content(rest, forms, reading.num_steps, reading.num_episodes, provenance, source)
    taken = _taken(given, target)
    placed = target.plan(content, **taken)
    columns = _noted(reading, first, notes)
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
    told = told_rate(reading.facts)
    if control_hz is not None:
        if not control_hz > 0:
            raise ConfigError(f"--control-hz must be above 0, but got {control_hz:g}")
        if told is not None and abs(told / control_hz - 1) > _SAME_RATE:
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


def _notes(transforms: Sequence[Transform]) -> dict[str, str]:
    """Returns {key: all that is done to it}."""
    found: dict[str, str] = {}
    for transform in transforms:
        for key, note in transform.notes.items():
            found[key] = f"{found[key]}; {note}" if key in found else note
    return found


def _note_changes(provenance: dict[str, Any], notes: Mapping[str, str], anew: Collection[str]) -> None:
    """Notes what is done to keys, and forgets what is no longer true of those that hold other numbers now."""
    if notes:
        provenance["changes"] = {**(provenance.get("changes") or {}), **notes}
    if "action" in anew:
        provenance.pop("action_bounds", None)
    if isinstance(provenance.get("names"), Mapping):
        provenance["names"] = {key: names for key, names in provenance["names"].items() if key not in anew}


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


def _noted(reading: Reading, first: Episode, notes: Mapping[str, str]) -> list[Column]:
    """Returns the source's columns with what the transforms do to them."""
    columns = reading.columns or [
        Column(key, str(values.dtype), values.shape[1:], key) for key, values in first.items()
    ]
    noted = []
    for each in columns:
        note = notes.get(each.becomes or "")
        becomes = None if note == LEFT_OUT else each.becomes
        noted.append(replace(each, becomes=becomes, note="; ".join(filter(None, (each.note, note)))) if note else each)
    return noted
