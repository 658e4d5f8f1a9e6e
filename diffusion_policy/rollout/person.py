"""Who sets the scene of a trial and judges it, and how they are asked."""

import queue
import sys
import threading
from typing import Protocol, TextIO


class Person(Protocol):
    """Who sets the scene and judges."""

    def ask(self, question: str) -> str | None:
        """Returns an answer that was given after the question; None when nobody is there any more."""

    def has_spoken(self) -> bool:
        """Whether a line came since the last question, which it takes."""

    def tell(self, what: str) -> None:
        """Shows something that needs no answer."""


def who_answers(lines: TextIO) -> Person:
    """Returns who answers: a person where the lines come from a terminal, and else who wrote them."""
    return Terminal(lines) if lines.isatty() else Piped(lines)


class Piped:
    """Answers from a pipe or a file, one a line, in the order of the questions; so nobody ends a trial before its time.

    Args:
        lines: the answers.
    """

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def ask(self, question: str) -> str | None:
        """See `Person`; the next line, whenever it was written."""
        print(question, end=" ", flush=True)
        line = self._lines.readline()
        print(line.strip(), flush=True)
        if line:
            return line.strip()
        print(f"the answers ran out: nobody answers '{question}'; one a line, two for each trial", file=sys.stderr)
        return None

    def has_spoken(self) -> bool:
        """Returns False: the next line answers the next question."""
        return False

    def tell(self, what: str) -> None:
        """See `Person`."""
        print(what, flush=True)


class Terminal:
    """A person at a keyboard; lines typed before a question are no answer to it.

    Args:
        lines: where they type.
    """

    def __init__(self, lines: TextIO) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), name="keyboard", daemon=True).start()

    def ask(self, question: str) -> str | None:
        """See `Person`."""
        self.has_spoken()
        print(question, end=" ", flush=True)
        line = self._lines.get()
        if line is None:
            self._lines.put(None)  # nobody comes back: later questions get no answer, either
        return line

    def has_spoken(self) -> bool:
        """See `Person`; the end of all lines stays for the next question."""
        spoken = False
        while not self._lines.empty():
            line = self._lines.get()
            if line is None:
                self._lines.put(None)
                return True
            spoken = True
        return spoken

    def tell(self, what: str) -> None:
        """See `Person`."""
        print(what, flush=True)

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            self._lines.put(line.strip())
        self._lines.put(None)
