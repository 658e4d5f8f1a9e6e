"""Shared by all tests: outside data, and settings of the property tests."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("project")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's `tests &` hands that on; tests of Ctrl-C, and what
    signal.signal(signal.SIGINT, signal.default_int_handler)  # they start, need the usual answer


@pytest.fixture(scope="session")
def human_pusht() -> Path:
    """The field's human Push-T demonstrations; the test is skipped where DP_DATA_DIR does not hold them."""
    folder = os.environ.get("DP_DATA_DIR")
    path = Path(folder or "") / "pusht_cchi_v7_replay" / "pusht_cchi_v7_replay.zarr"
    if folder is None or not path.exists():
        pytest.skip("needs the human Push-T demonstrations below DP_DATA_DIR")
    return path
