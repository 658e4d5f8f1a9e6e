"""A server that plans."""

import pytest

from tests.control.clocks import Telling


@pytest.fixture
def running():
    from tests.serving.running import Running, offer  # the extra `serve`, which the recorder's tests do not need

    with Running(offer(Telling())) as found:
        yield found
