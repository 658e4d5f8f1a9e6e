"""Plain nested values, as in YAML files and checkpoints, to typed dataclasses and back. Standard library only."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from diffusion_policy.errors import ConfigError


class _DataclassType(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


C = TypeVar("C", bound=_DataclassType)


def build(cls: type[C], settings: Mapping[str, Any], where: str) -> C:
    """Returns `cls(**settings)`, with a typo, a missing entry or a wrong type named instead of a TypeError.

    Args:
        cls: a dataclass; list values become tuples, so that instances stay hashable and comparable.
        settings: plain values, e.g. one section of a YAML file.
        where: how the section is called, for messages.

    Raises:
        ConfigError: lists the known keys, the missing ones, or the expected type.
    """
    known = [f.name for f in fields(cls)]
    unknown = sorted(set(map(str, settings)) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown setting {', '.join(unknown)}, known: {', '.join(known)}")
    required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    missing = sorted(required - set(settings))
    if missing:
        raise ConfigError(f"{where}: missing setting {', '.join(missing)}, known: {', '.join(known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    hints = get_type_hints(cls)
    for key, value in values.items():
        if not _fits(value, hints[key]):
            raise ConfigError(f"{where}.{key}: expected {_described(hints[key])}, but got {value!r}")
    return cls(**values)


def build_part(cls: type[C], settings: Mapping[str, Any], where: str) -> C:
    """Returns `cls` from a section that it shares with other classes: entries it does not know are left to them."""
    names = {f.name for f in fields(cls)}
    return build(cls, {key: value for key, value in settings.items() if key in names}, where)


def plain(value: Any) -> Any:
    """Returns dataclasses, tuples and mappings as nested dicts and lists: what YAML and checkpoints hold."""
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def difference(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 3) -> str:
    """Returns which settings differ, by name: "optim.lr 0.001, but got 0.1"; empty where none does.

    Args:
        before: plain nested values.
        now: likewise.
        most: so many are told, and how many more there are.
    """
    old, new = _flat(before), _flat(now)
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    told = [f"{name} {old.get(name)!r}, but got {new.get(name)!r}" for name in names[:most]]
    return "; ".join([*told, *([f"{len(names) - most} more differ"] if len(names) > most else [])])


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Returns {"optim.lr": 0.001} of nested values; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        flat.update(_flat(value, f"{before}{name}.") if nested else {f"{before}{name}": value})
    return flat


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns the mapping `settings[name]`, empty when it is absent.

    Raises:
        ConfigError: the entry is not a mapping.
    """
    value = settings.get(name) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: expected a mapping of settings, but got {value!r}")
    return cast("Mapping[str, Any]", value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is what an annotation says; unknown annotations accept anything."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        return len(each) == len(value) and all(_fits(v, h) for v, h in zip(value, each, strict=True))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return True


def _described(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(each) for each in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        if arguments[-1] is ...:
            return f"a list of {_described(arguments[0]).removeprefix('a ')}s"
        return f"a list of {len(arguments)}"
    return words.get(hint, str(hint))
