"""Human Push-T episodes, for tests that compare with them."""

from pathlib import Path

import numpy as np
import pytest
import zarr

Recording = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def human_episodes(human_pusht: Path) -> list[Recording]:
    """Every seventh human episode: state (N, 5), action (N, 2), keypoint (N, 9, 2), float64."""
    root = zarr.open(human_pusht, mode="r")
    ends = root["meta/episode_ends"][:]
    keys = ("state", "action", "keypoint")
    columns = {key: np.split(root[f"data/{key}"][:].astype(np.float64), ends[:-1]) for key in keys}
    return [{key: columns[key][i] for key in keys} for i in range(0, len(ends), 7)]
