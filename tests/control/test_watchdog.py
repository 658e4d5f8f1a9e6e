"""A loop that hangs is noticed by a thread that does not."""

import threading
import time

import pytest

from diffusion_policy.control.watchdog import Watchdog
from diffusion_policy.errors import ConfigError

PATIENCE_S = 60.0


class Stop:
    """Counts its calls."""

    def __init__(self):
        self.called = threading.Semaphore(0)

    def __call__(self):
        self.called.release()

    def came(self):
        return self.called.acquire(timeout=PATIENCE_S)

    def silent(self):
        return not self.called.acquire(blocking=False)


def test_a_loop_that_hangs_is_stopped_once_until_it_lives_again():
    stop = Stop()
    with Watchdog(stop, 0.02) as dog:
        assert stop.came()
        time.sleep(0.1)
        assert stop.silent()
        dog.feed()
        assert stop.came()
    assert dog.barked == 2


def test_a_loop_that_lives_is_left_alone():
    stop, now = Stop(), [0.0]
    with Watchdog(stop, 5.0, lambda: now[0]) as dog:
        for _ in range(100):
            now[0] += 4.9
            dog.feed()
        time.sleep(0.05)
    assert stop.silent()
    assert dog.barked == 0


def test_leaving_ends_watching_and_entering_begins_anew():
    stop = Stop()
    with Watchdog(stop, 3600.0) as dog:
        thread = dog._thread
    assert not thread.is_alive()
    assert stop.silent()
    dog._limit = 0.01
    with dog:
        assert stop.came()


def test_a_stop_that_raises_is_kept_and_the_dog_lives():
    calls = Stop()

    def stop():
        calls()
        raise OSError("the motors do not answer")

    with Watchdog(stop, 0.02) as dog:
        assert calls.came()
        ends = time.monotonic() + PATIENCE_S
        while not dog.barked:
            assert time.monotonic() < ends
            time.sleep(0.001)
        dog.feed()
        assert calls.came()
    assert str(dog.error) == "the motors do not answer"


@pytest.mark.parametrize("limit_s", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_make_no_sense_are_refused(limit_s):
    with pytest.raises(ConfigError, match="limit_s must be positive"):
        Watchdog(print, limit_s)
