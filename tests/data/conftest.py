"""Small made-up demonstrations."""

from collections.abc import Callable

import numpy as np
import pytest

Episode = dict[str, np.ndarray]


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    """Returns f(steps, seed) -> an episode with actions, a state and small images."""

    def make(steps: int, seed: int = 0) -> Episode:
        rng = np.random.default_rng(seed)
        return {
            "action": rng.normal(size=(steps, 2)).astype(np.float32),
            "state": rng.normal(size=(steps, 5)).astype(np.float32),
            "img": rng.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8),
        }

    return make
