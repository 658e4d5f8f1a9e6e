"""A server that plans."""

import pytest

from tests.control.clocks import Telling
from tests.serving.running import Running, offer


@pytest.fixture
def running():
    with Running(offer(Telling())) as found:
        yield found
