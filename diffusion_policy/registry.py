"""Names in configuration files become classes here, and nowhere else.

YAML is data: it never holds a class path. A component registers under a short name; a typo lists the known
names; other people's components become known by importing their module (`plugins=[my_pkg.nets]`).
"""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Generic, TypeVar

from diffusion_policy.errors import ConfigError, UnknownNameError

T = TypeVar("T")


def import_plugins(modules: str | Iterable[str]) -> None:
    """Imports other people's modules, so that what they register is known.

    Raises:
        ConfigError: one cannot be imported.
    """
    for module in [modules] if isinstance(modules, str) else modules:
        try:
            import_module(module)
        except (ImportError, SyntaxError, NameError) as error:
            raise ConfigError(f"plugins: cannot import {module}: {error}; is it installed or on PYTHONPATH?") from error


class Registry(Generic[T]):
    """A named collection of components of one kind.

    Args:
        kind: what the entries are, as a person would say it ("backbone"); used in error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that makes its argument known as `name`.

        Raises:
            ConfigError: `name` already stands for something else.
        """

        def add(entry: T) -> T:
            known = self._entries.get(name)
            if known is not None and known is not entry:
                raise ConfigError(
                    f"{self.kind} '{name}' is already registered as {known!r}; choose another name for {entry!r}"
                )
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """Returns the entry called `name`.

        Raises:
            UnknownNameError: lists the known names.
        """
        if name not in self._entries:
            known = ", ".join(self.names()) or "none"
            raise UnknownNameError(
                f"unknown {self.kind} '{name}', known: {known}; if it is your own, import its module first "
                f"(commands: plugins=[your_module])"
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """Returns the known names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
