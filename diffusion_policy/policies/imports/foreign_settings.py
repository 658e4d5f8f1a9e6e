"""Settings that somebody else's program wrote: each is checked, and bounded, where it is read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from diffusion_policy.errors import CheckpointError, MissingFileError

MOST_STEPS = 4096  # of a horizon
MOST_PIXELS = 4096  # of a side of a picture
MOST_NUMBERS = 1_000_000  # in one field or action
_MAX_JSON = 16 * 2**20  # bytes


class Settings:
    """A mapping of settings, and how to call it in messages.

    Args:
        values: the settings.
        what: e.g. "config.json".
    """

    def __init__(self, values: object, what: str) -> None:
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{what} must be a mapping, but is {type(values).__name__}")
        self.values, self.what = values, what

    def has(self, name: str) -> bool:
        """Whether a setting is there, and not None."""
        return self.values.get(name) is not None

    def part(self, name: str) -> "Settings":
        """Returns a mapping in it."""
        return Settings(self._get(name), f"{self.what}.{name}")

    def text(self, name: str, default: str | None = None) -> str:
        """Returns a word."""
        value = self.values.get(name, default)
        return value if isinstance(value, str) else self._fail(name, "a word", value)

    def flag(self, name: str, default: bool) -> bool:
        """Returns true or false."""
        value = self.values.get(name, default)
        return value if isinstance(value, bool) else self._fail(name, "true or false", value)

    def whole(self, name: str, most: int, default: int | None = None) -> int:
        """Returns a whole number in 1..most."""
        value = self.values.get(name, default)
        return value if _is_whole(value, most) else self._fail(name, f"a whole number in 1..{most}", value)

    def number(self, name: str, default: float) -> float:
        """Returns a number."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._fail(name, "a number", value)
        return float(value)

    def wholes(self, name: str, most: int, default: object = None) -> tuple[int, ...]:
        """Returns a list of whole numbers in 1..most, at most eight."""
        value = self.values.get(name, default)
        if not isinstance(value, (list, tuple)) or len(value) > 8 or not all(_is_whole(n, most) for n in value):
            self._fail(name, f"a few whole numbers in 1..{most}", value)
        return tuple(value)

    def size(self, name: str) -> tuple[int, int] | None:
        """Returns (height, width) in pixels, or None."""
        if not self.has(name):
            return None
        sides = self.wholes(name, MOST_PIXELS)
        return (sides[0], sides[1]) if len(sides) == 2 else self._fail(name, "[height, width]", sides)

    def expect(self, name: str, wanted: object, why: str) -> None:
        """Raises where a setting that is there says something else than `wanted`."""
        if name in self.values and self.values[name] != wanted:
            raise CheckpointError(f"{self.what}.{name} is {self.values[name]!r}; {why}")

    def _get(self, name: str) -> Any:
        if not self.has(name):
            raise CheckpointError(f"{self.what} has no {name}; expected one")
        return self.values[name]

    def _fail(self, name: str, wanted: str, got: object) -> NoReturn:
        raise CheckpointError(f"{self.what}.{name} must be {wanted}, but is {str(got)[:100]!r}")


def _is_whole(value: object, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def read_json(path: Path) -> Settings:
    """Returns a JSON file's settings.

    Raises:
        MissingFileError: no such file.
        CheckpointError: it is something else.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist")
    try:
        if path.stat().st_size > _MAX_JSON:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, expected at most {_MAX_JSON}; refused")
        return Settings(json.loads(path.read_text("utf-8")), path.name)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is no JSON ({str(error).splitlines()[0][:100]}); copy it again") from error
