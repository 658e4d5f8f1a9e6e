"""A small replay buffer, and what it must hold."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion_policy import ReplayBuffer

Episode = dict[str, np.ndarray]
MakeEpisode = Callable[..., Episode]


def filled(
    place: Path | None, make_episode: MakeEpisode, lengths: tuple[int, ...] = (4, 7, 1), **settings
) -> ReplayBuffer:
    buffer = ReplayBuffer.create(place, **settings)
    for seed, steps in enumerate(lengths):
        buffer.add_episode(make_episode(steps, seed))
    return buffer


def assert_holds(buffer: ReplayBuffer, make_episode: MakeEpisode, lengths: tuple[int, ...] = (4, 7, 1)) -> None:
    assert buffer.episode_ends.tolist() == np.cumsum(lengths).tolist()
    for seed, steps in enumerate(lengths):
        expected, found = make_episode(steps, seed), buffer.get_episode(seed)
        assert list(found) == sorted(expected)
        for key, values in expected.items():
            assert found[key].dtype == values.dtype
            np.testing.assert_array_equal(found[key], values)
    assert buffer.verify()
