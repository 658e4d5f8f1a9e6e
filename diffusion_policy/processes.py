"""What a process that we start inherits, and how it ends with us. Standard library only."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def inherited_calm(environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """What a process that is started meanwhile inherits: deafness to Ctrl-C, and variables of the environment.

    Its first instructions are Python's own: there, Ctrl-C would end in a traceback. `settle` is what it does next.
    """
    wanted = dict(environment or {})
    before = {name: os.environ.get(name) for name in wanted}
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        resource_tracker.ensure_running()  # starting it would lift the mask again
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def settle() -> None:
    """Makes this process one that works for its parent: Ctrl-C is the parent's affair, and it ends when that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal: the parent decides
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked while this process started
    end_with_parent()


def end_with_parent() -> None:
    """Lets this process end as soon as its parent has ended, even if it hangs and nobody reads the pipe."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
