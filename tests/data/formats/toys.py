"""Small data sets of ours, to be written as another format and read again."""

from pathlib import Path

import numpy as np

from diffusion_policy import ReplayBuffer

LENGTHS = (5, 3, 7)


def episodes(seed: int = 0, *, picture: bool = True) -> list[dict[str, np.ndarray]]:
    """Returns episodes as reinforcement learning needs them: rewards, ends, and what followed each step."""
    rng, made = np.random.default_rng(seed), []
    for i, steps in enumerate(LENGTHS):
        seen = rng.normal(size=(steps + 1, 4)).astype(np.float32)
        last = np.arange(steps) == steps - 1
        episode = {
            "agent_pos": seen[:-1],
            "next_agent_pos": seen[1:],
            "action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
            "reward": rng.normal(size=steps).astype(np.float32),
            "terminated": last & (i == 1),
            "truncated": last & (i != 1),
        }
        if picture:
            shown = rng.integers(0, 256, (steps + 1, 12, 10, 3)).astype(np.uint8)
            episode |= {"front": shown[:-1], "next_front": shown[1:]}
        made.append(episode)
    return made


def store(path: Path, made: list[dict[str, np.ndarray]], **provenance: object) -> Path:
    """Writes episodes as ours."""
    with ReplayBuffer.create(path, attrs={"provenance": provenance}) as buffer:
        buffer.add_episodes(made)
    return path


def same(left: Path, right: Path) -> None:
    """Asserts that two data sets of ours hold the same episodes: keys, dtypes, numbers, ends."""
    with ReplayBuffer.open(left) as one, ReplayBuffer.open(right) as other:
        assert one.keys() == other.keys()
        assert {key: one.dtype(key) for key in one.keys()} == {key: other.dtype(key) for key in other.keys()}  # noqa: SIM118
        assert one.digest() == other.digest()
        assert one.episode_ends.tolist() == other.episode_ends.tolist()
