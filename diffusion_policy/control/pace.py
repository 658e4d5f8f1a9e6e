"""When to tick: at even times, without a burst after the loop stood still."""

import time
from collections.abc import Callable, Iterator


def paced(
    step_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[float]:
    """Yields the time at each tick, now and every `step_s` from now on, for ever.

    A tick whose turn comes less than half a step late is late; ticks that are past by more are left out, not made good
    one after the other: a robot would be sent through all of them at once.

    Args:
        step_s: seconds from one tick to the next.
        clock: the time in seconds.
        sleep: waits so many of them.
    """
    begun, number = clock(), 0
    while True:
        sleep(max(0.0, begun + number * step_s - clock()))
        now = clock()
        yield now
        number = max(number + 1, round((clock() - begun) / step_s))
