"""What runs in a worker process: a few environments, obeyed through a pipe.

Everything comes and goes in order. In: a `Job`, then lists of (slot, command). Out: `EnvFacts`; then, for each list, a
`Beat` a step and at its end one (slot, moments) a command; or a `Failure`, which is the last word.
"""

import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Self, TypeVar

from diffusion_policy import errors
from diffusion_policy.errors import DiffusionPolicyError
from diffusion_policy.processes import settle
from diffusion_policy.registry import import_plugins
from diffusion_policy.rollout.episode import Command, EpisodeSlot, Moment, SlotSetup
from diffusion_policy.rollout.gl import choose_gl

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What a worker is for.

    Args:
        setup: what its environments are made from.
        places: the slots that run here.
        plugins: modules to import first.
    """

    setup: SlotSetup
    places: Sequence[int]
    plugins: str | Sequence[str] = ()


@dataclass(frozen=True)
class Failure:
    """An exception, as text: its class may be unknown on the other side.

    Args:
        kind: name of its class.
        message: what it says.
        trace: its traceback.
        place: the slot that raised; None while the environments were made.
    """

    kind: str
    message: str
    trace: str
    place: int | None = None

    @classmethod
    def of(cls, error: Exception, place: int | None = None) -> Self:
        """Returns the failure that an exception is."""
        trace = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error), trace, place)

    def expected(self) -> DiffusionPolicyError | None:
        """Returns the exception anew if it is one of this package, whose message says it all."""
        kind = getattr(errors, self.kind, None)
        known = isinstance(kind, type) and issubclass(kind, DiffusionPolicyError)
        return kind(self.message) if kind is not None and known else None


@dataclass(frozen=True)
class Beat:
    """A sign of life: one step more. Small, for nobody may listen while the policy computes, and a pipe holds little.

    Args:
        place: the slot that took it.
        last: whether it was the last one of its command.
    """

    place: int
    last: bool


class _FailedError(Exception):
    """Ends a worker that has reported a failure."""


def serve(conn: Connection) -> None:
    """Works until the other side closes the pipe, or ends."""
    settle()
    choose_gl()
    # EOFError, OSError: nobody listens any more. Those of an environment are reported before they get here.
    with suppress(_FailedError, EOFError, OSError), ExitStack() as closing:
        slots = _attempt(conn, None, lambda: _slots(conn, closing))
        while True:
            answers = [
                _attempt(conn, place, partial(_obeyed, conn, slots[place], place, command))
                for place, command in conn.recv()
            ]
            for answer in answers:
                conn.send_bytes(answer)


def _obeyed(conn: Connection, slot: EpisodeSlot, place: int, command: Command) -> bytes:
    """Returns (slot, moments), packed: an observation that cannot be is the environment's failure, too."""
    moments: list[Moment] = []
    for moment in slot.obey(command):
        if moments:
            conn.send(Beat(place, last=False))
        moments.append(moment)
    answer = bytes(ForkingPickler.dumps((place, moments)))
    conn.send(Beat(place, last=True))
    return answer


def _slots(conn: Connection, closing: ExitStack) -> dict[int, EpisodeSlot]:
    """Receives the job; returns its environments, which are closed with `closing`."""
    job: Job = conn.recv()
    import_plugins(job.plugins)
    slots = {}
    for place in job.places:
        slots[place] = EpisodeSlot(job.setup)
        closing.callback(_close, slots[place])
    conn.send(slots[job.places[0]].facts)
    return slots


def _attempt(conn: Connection, place: int | None, work: Callable[[], T]) -> T:
    """Returns what `work` returns; reports what it raises."""
    try:
        return work()
    except Exception as error:
        conn.send(Failure.of(error, place))
        raise _FailedError from error


def _close(slot: EpisodeSlot) -> None:
    with suppress(Exception):  # all results are sent: a failure now concerns nobody
        slot.close()
