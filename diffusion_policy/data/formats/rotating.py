"""Rotations of a key, or of some of its numbers, in another form: `action[3:6]=axis_angle->rotation_6d_rows`."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from diffusion_policy.data.formats.reading import Episode
from diffusion_policy.data.rotations import convert, size
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError

_SPEC = re.compile(r"(?P<key>[\w.-]+)(\[(?P<start>\d+):(?P<stop>\d+)\])?=(?P<source>\w+)->(?P<target>\w+)")


@dataclass(frozen=True)
class Rotating:
    """Writes rotations in another form; what followed each step (`next_<key>`) likewise. The other numbers stay.

    Args:
        key: that holds them.
        source: the form they are in (`rotations.FORMS`).
        target: the form to write.
        start: of the numbers of a step, the first; None for all of them.
        stop: behind the last.

    Raises:
        UnknownNameError: a form is unknown.
        ConfigError: the numbers are not as many as the form takes.
    """

    key: str
    source: str
    target: str
    start: int | None = None
    stop: int | None = None
    notes: dict[str, str] = field(init=False)
    keeps_units: ClassVar[bool] = False

    def __post_init__(self) -> None:
        expected = size(self.source)
        size(self.target)
        if self.start is not None and self.stop is not None and self.stop - self.start != expected:
            raise ConfigError(
                f"--rotation {self.key}[{self.start}:{self.stop}]: {self.source} takes {expected} numbers, but got "
                f"{self.stop - self.start}"
            )
        where = "" if self.start is None else f"[{self.start}:{self.stop}] "
        object.__setattr__(self, "notes", {self.key: f"{where}{self.source} -> {self.target}"})

    @classmethod
    def parse(cls, text: str) -> "Rotating":
        """Returns what `KEY=FROM->TO` or `KEY[START:STOP]=FROM->TO` says.

        Raises:
            ConfigError: it says nothing of this kind.
        """
        found = _SPEC.fullmatch(text.replace(" ", ""))
        if found is None:
            raise ConfigError(
                f"--rotation must be KEY=FROM->TO or KEY[3:6]=FROM->TO, in quotes for the shell, but got '{text}'"
            )
        start, stop = (None if found[name] is None else int(found[name]) for name in ("start", "stop"))
        return cls(found["key"], found["source"], found["target"], start, stop)

    def __call__(self, episode: Episode, where: str) -> Episode:
        """Returns the episode with its rotations in the other form.

        Raises:
            DataError: there is no such key, it is too short, or its numbers are no rotations.
        """
        if self.key not in episode:
            raise DataError(f"{where}: no '{self.key}' to rotate, it has: {', '.join(episode)}")
        changed = {}
        for key in (self.key, NEXT + self.key):
            if key not in episode:
                continue
            values = np.asarray(episode[key])
            start, stop = (0, values.shape[-1]) if self.start is None else (self.start, self.stop)
            if values.ndim < 2 or (stop or 0) > values.shape[-1]:
                raise DataError(
                    f"{where}: '{key}' has {values.shape[1:]} numbers a step, expected {self.notes[self.key]}"
                )
            try:
                rotations = convert(values[..., start:stop], self.source, self.target)
            except DataError as error:
                raise DataError(f"{where}: '{key}': {error}") from error
            changed[key] = np.concatenate([values[..., :start], rotations, values[..., stop:]], axis=-1)
        return {**episode, **changed}
