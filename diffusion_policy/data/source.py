"""How a field of a policy finds its numbers in a data set.

A data set's key with the field's own name wins over another key that `source` names, for our own data sets use the
fields' names. `source` is a key or a part of its last axis: "keypoint", "state[0:2]", "state[3]"; pictures may be
scaled: "img*255".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.data.episodes import Ends, episode_at, lengths, runs
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError

_PATTERN = re.compile(
    r"(?P<key>[^\[\]/\s*]+)(\[(?P<start>\d+)(?P<colon>:)?(?P<stop>\d+)?\])?(\s*\*\s*(?P<scale>\d+(\.\d+)?))?"
)
_BLOCK_BYTES = 64 << 20  # read at once: float pictures are four times the size of the bytes they become


@dataclass(frozen=True)
class Source:
    """A key of a data set and the part [start, stop) of its last axis, None for all of it; times `scale`."""

    key: str
    start: int | None = None
    stop: int | None = None
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Returns what "state", "state[0:2]", "state[3]" (one number, the axis stays) or "img*255" means.

        Raises:
            ConfigError: none of these forms, or an empty range.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None or (match["start"] and not match["colon"] and match["stop"]):
            raise ConfigError(f"source must look like state, state[0:2], state[3] or img*255, but got '{text}'")
        scale = float(match["scale"] or 1.0)
        if match["start"] is None:
            return cls(match["key"], scale=scale)
        start = int(match["start"])
        stop = int(match["stop"]) if match["stop"] else None if match["colon"] else start + 1
        if stop is not None and stop <= start:
            raise ConfigError(f"source '{text}' selects nothing: expected start < stop; write e.g. [0:2]")
        return cls(match["key"], start, stop, scale)

    def __str__(self) -> str:
        part = "" if self.start is None else f"[{self.start}:{'' if self.stop is None else self.stop}]"
        return f"{self.key}{part}" + ("" if self.scale == 1.0 else f"*{self.scale:g}")


def obs_source(name: str, field: ObsField, buffer: ReplayBuffer) -> Source:
    """Returns where a field's observations lie in a data set.

    Raises:
        ConfigError: `source` cannot be parsed.
        DataError: the key is missing, or its shape is another.
    """
    source = named_source(name, field, buffer)
    shape = stored_shape(source, buffer, f"obs.{name}")
    if int(np.prod(shape)) != field.size:
        raise DataError(
            f"{buffer.location}: obs.{name} must have shape {field.shape} ({field.size} numbers), but '{source}' has "
            f"{shape}; correct the shape or set obs.{name}.source, e.g. '{source.key}[0:{(field.shape or (1,))[-1]}]'"
        )
    return source


def named_source(name: str, field: ObsField, buffer: ReplayBuffer) -> Source:
    """Returns what a data set has for a field, by name alone: see the module; it need not be there, or fit."""
    named = Source.parse(field.source) if field.source is not None else Source(name)
    return Source(name) if name in buffer and named.key != name else named


def shadowed(name: str, field: ObsField, buffer: ReplayBuffer) -> Source | None:
    """Returns what a field's `source` names if a key with the field's own name wins, and holds other numbers.

    Args:
        name: the field's.
        field: with its source.
        buffer: the data set, of which one episode is read; pictures are not compared.
    """
    if field.source is None or field.is_picture:
        return None
    named, taken = Source.parse(field.source), named_source(name, field, buffer)
    if named == taken or named.key not in buffer:
        return None
    try:
        fits = int(np.prod(stored_shape(named, buffer, name))) == field.size
    except DataError:  # nobody reads it: it need not fit
        return None
    if not fits:
        return None
    theirs, mine = (_read_rows(each, buffer, [0]) for each in (named, taken))
    same = theirs.size == mine.size and np.allclose(theirs.ravel(), mine.ravel(), rtol=1e-4, atol=1e-6, equal_nan=True)
    return None if same else named


def read_obs(name: str, field: ObsField, buffer: ReplayBuffer, episodes: Sequence[int] | Ends) -> NDArray[np.float32]:
    """Returns a field's numbers in some episodes, contiguous: (n, *shape); for pictures see `images`.

    Args:
        name: the field's name, for the data set and for messages.
        field: its type, shape and source.
        buffer: only the field's key is read.
        episodes: sorted, distinct.

    Raises:
        DataError: missing, of another shape, or not finite.
    """
    source = obs_source(name, field, buffer)
    rows = _read_rows(source, buffer, episodes)
    _check_finite(rows, source, buffer, episodes)
    return rows.reshape(len(rows), *field.shape)


def read_action(spec: ActionSpec, buffer: ReplayBuffer, episodes: Sequence[int] | Ends) -> NDArray[np.float32]:
    """Returns the actions of some episodes, contiguous: (n, Da); several keys are concatenated in `source`'s order.

    Raises:
        DataError: a key is missing, the sizes do not add up to Da, or a number is not finite.
    """
    columns = []
    for source in action_sources(spec, buffer):
        rows = _read_rows(source, buffer, episodes)
        _check_finite(rows, source, buffer, episodes)
        columns.append(rows.reshape(len(rows), -1))
    return np.ascontiguousarray(np.concatenate(columns, axis=1), np.float32)  # (n, Da)


def action_sources(spec: ActionSpec, buffer: ReplayBuffer) -> list[Source]:
    """Returns where the parts of an action lie in a data set, in their order.

    Raises:
        DataError: a key is missing, or the sizes do not add up to Da.
    """
    sources = [Source.parse(text) for text in spec.source]
    shapes = [stored_shape(source, buffer, "action") for source in sources]
    sizes = [int(np.prod(shape)) for shape in shapes]
    if sum(sizes) != spec.size:
        listed = " + ".join(f"'{source}' {shape}" for source, shape in zip(sources, shapes, strict=True))
        raise DataError(
            f"{buffer.location}: an action must have {spec.size} numbers (shape {spec.shape}), but got {sum(sizes)} "
            f"from {listed}; correct action.shape or action.source"
        )
    return sources


def stored_shape(source: Source, buffer: ReplayBuffer, what: str) -> tuple[int, ...]:
    """Returns the shape of one step of what a source selects.

    Raises:
        DataError: `what`'s key is not there, or the range is not in it.
    """
    if source.key not in buffer:
        raise DataError(
            f"{buffer.location}: {what} needs data '{source.key}', but the data set has: "
            f"{', '.join(buffer.keys()) or 'no episodes'}; set {what}.source to one of them"
        )
    shape = buffer.shape(source.key)
    if source.start is None:
        return shape
    width = shape[-1] if shape else 1
    stop = width if source.stop is None else source.stop
    if not source.start < stop <= width:
        raise DataError(
            f"{buffer.location}: {what}.source '{source}' must lie within the last axis of '{source.key}' {shape}, "
            f"which has {width} entries; correct the range"
        )
    return (*shape[:-1], stop - source.start)


def blocks(source: Source, buffer: ReplayBuffer, episodes: Sequence[int] | Ends) -> Iterator[NDArray[Any]]:
    """Yields the selected part of one key, (n, *selected shape), in order and never much at once.

    Runs of neighbouring episodes are read together.
    """
    selected = slice(source.start, source.stop)
    block = max(1, _BLOCK_BYTES // max(1, buffer.step_bytes([source.key])))
    for first, stop in runs(episodes):
        begin, end = buffer.episode_slice(first).start, buffer.episode_slice(stop - 1).stop
        for start in range(begin, end, block):
            values = buffer.read(source.key, start, min(start + block, end))
            if source.start is not None:
                values = values.reshape(len(values), *(buffer.shape(source.key) or (1,)))[..., selected]
            yield values if source.scale == 1.0 else values * np.float32(source.scale)


def _read_rows(source: Source, buffer: ReplayBuffer, episodes: Sequence[int] | Ends) -> NDArray[np.float32]:
    """Returns the selected part of one key, (n, *selected shape)."""
    count = int(lengths(buffer.episode_ends)[np.asarray(episodes, np.int64)].sum())
    rows = np.empty((count, *stored_shape(source, buffer, "")), np.float32)
    at = 0
    for values in blocks(source, buffer, episodes):
        rows[at : at + len(values)] = values
        at += len(values)
    return rows


def _check_finite(rows: NDArray[Any], source: Source, buffer: ReplayBuffer, episodes: Sequence[int] | Ends) -> None:
    bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))
    if not bad.size:
        return
    chosen = np.asarray(episodes, np.int64)
    ends = np.cumsum(lengths(buffer.episode_ends)[chosen])
    position = episode_at(ends, int(bad[0]))
    step = int(bad[0]) - (int(ends[position - 1]) if position else 0)
    raise DataError(
        f"{buffer.location}: '{source}' must be finite, but has NaN or infinity, first at step {step} of episode "
        f"{chosen[position]} ({bad.size} of {len(rows)} steps); repair or leave out these episodes (dp-inspect lists "
        f"them)"
    )
