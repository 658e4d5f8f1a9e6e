"""Numbers of a key clipped to bounds: `action=-1:1`, for recordings of commands that the environment clipped."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from diffusion_policy.data.formats.reading import Episode
from diffusion_policy.errors import ConfigError, DataError

_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"
_SPEC = re.compile(rf"(?P<key>[\w.-]+)=(?P<low>{_NUMBER}):(?P<high>{_NUMBER})", re.IGNORECASE)


@dataclass(frozen=True)
class Clipping:
    """Clips all numbers of a key.

    Args:
        key: that holds them.
        low: smallest that stays as it is.
        high: largest.

    Raises:
        ConfigError: `low` is not below `high`.
    """

    key: str
    low: float
    high: float
    notes: dict[str, str] = field(init=False)
    keeps_units: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"--clip {self.key}: the first bound must be below the second, but got {self._bounds}")
        object.__setattr__(self, "notes", {self.key: f"clipped to {self._bounds}"})

    @property
    def _bounds(self) -> str:
        return f"{self.low:g}:{self.high:g}"

    @classmethod
    def parse(cls, text: str) -> "Clipping":
        """Returns what `KEY=LOW:HIGH` says.

        Raises:
            ConfigError: it says nothing of this kind.
        """
        found = _SPEC.fullmatch(text.replace(" ", ""))
        if found is None:
            raise ConfigError(f"--clip must be KEY=LOW:HIGH, e.g. action=-1:1, but got '{text}'")
        return cls(found["key"], float(found["low"]), float(found["high"]))

    def __call__(self, episode: Episode, where: str) -> Episode:
        """Returns the episode with the key's numbers within the bounds; their dtype stays.

        Raises:
            DataError: there is no such key, or its numbers are whole.
        """
        if self.key not in episode:
            raise DataError(f"{where}: no '{self.key}' to clip, it has: {', '.join(episode)}")
        values = np.asarray(episode[self.key])
        if values.dtype.kind != "f":
            raise DataError(f"{where}: '{self.key}' must hold fractions to be clipped, but has {values.dtype}")
        return {**episode, self.key: np.clip(values, self.low, self.high).astype(values.dtype)}
