"""What stands for the things of a pickle that are no data: names and notes, which do nothing. See `pickled`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffusion_policy.errors import CheckpointError

_MAX_PARTS = 1_000_000  # of what `plain` copies: references to references can spell more than memory holds


@dataclass(frozen=True)
class Named:
    """A class or a function that a pickle names.

    Args:
        path: "module.name".
    """

    path: str


@dataclass(eq=False)
class Inert:
    """What a pickle would have made by a call.

    Args:
        maker: what it would have called.
        args: with which arguments.
        state: what it would have been given afterwards.
        items: what would have been put into it, in pairs where it has keys.
    """

    maker: object
    args: tuple[Any, ...]
    state: object = None
    items: list[Any] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The name of what it would have called, "" where that was no name."""
        return self.maker.path if isinstance(self.maker, Named) else ""


def plain(value: object, unfold: Callable[[Inert], object], what: str) -> Any:
    """Returns nested values of a pickle as plain ones: dicts with str keys, lists, str, numbers, None.

    Args:
        value: of a pickle.
        unfold: returns what an inert object stands for, one layer.
        what: how to call it in messages.

    Raises:
        CheckpointError: there is something else in it, it holds itself, or it is too large.
    """
    left = _MAX_PARTS

    def copied(part: object, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 50:
            raise CheckpointError(f"{what} is nested too deeply, or too large, to be a configuration; refused")
        if isinstance(part, Inert):
            return copied(unfold(part), depth + 1)
        if isinstance(part, dict):
            return {str(key): copied(each, depth + 1) for key, each in part.items()}
        if isinstance(part, (list, tuple)):
            return [copied(each, depth + 1) for each in part]
        if part is None or isinstance(part, (str, int, float)):
            return part
        raise CheckpointError(f"{what} holds a {type(part).__name__}, expected plain values")

    return copied(value, 0)
