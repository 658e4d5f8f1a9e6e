"""Sound demonstrations of a small arm, into which tests plant faults."""

import numpy as np

from diffusion_policy import ReplayBuffer
from diffusion_policy.data.survey import Survey

Episode = dict[str, np.ndarray]
Demos = list[Episode]

HZ = 20.0


def demonstrations(seed: int = 0, count: int = 8, *, images: bool = False, idle: int = 0) -> Demos:
    """Returns smooth motions: `action` are targets, `joints` follow, `tool` is a quaternion, `time_s` the clock."""
    rng = np.random.default_rng(seed)
    return [_episode(rng, int(rng.integers(60, 100)), images, idle) for _ in range(count)]


def _episode(rng: np.random.Generator, steps: int, images: bool, idle: int) -> Episode:
    time = np.arange(steps) / HZ
    waves = rng.uniform(0.3, 1.0, (3, 4)) * np.sin(
        rng.uniform(0.5, 2.0, (3, 4)) * time[:, None, None] + rng.uniform(0, 6, (3, 4))
    )  # (T, 3, 4)
    action = np.concatenate([np.repeat(waves[:1], idle, 0), waves, np.repeat(waves[-1:], idle, 0)]).sum(axis=1)
    joints = np.empty_like(action)
    joints[0] = action[0]
    for t in range(1, len(action)):
        joints[t] = joints[t - 1] + 0.6 * (action[t - 1] - joints[t - 1])
    joints += rng.normal(0, 1e-4, joints.shape)  # encoders
    half = np.stack([0.5 + 0.3 * joints[:, 0], 0.2 + 0.1 * joints[:, 1], joints[:, 2] * 0.1], axis=1)
    scalar = np.ones((len(half), 1))
    tool = (
        np.concatenate([half, scalar], axis=1) / np.linalg.norm(np.concatenate([half, scalar], axis=1), axis=1)[:, None]
    )
    episode = {"action": action, "joints": joints, "tool": tool}
    episode = {key: values.astype(np.float32) for key, values in episode.items()}
    episode["time_s"] = np.arange(len(action)) / HZ + rng.uniform(0, 0.002, len(action))
    if images:
        y, x = np.mgrid[:12, :16]
        grey = 128 + 100 * np.sin(x / 3 + 3 * joints[:, :1, None] + y / 4 + joints[:, 1:2, None])
        episode["img"] = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    return episode


def stored(demos: Demos) -> ReplayBuffer:
    buffer = ReplayBuffer.create()
    buffer.add_episodes(demos)
    return buffer


def loud(found: Survey) -> dict[str, str]:
    """Returns what is worse than a note, severities by name."""
    return {each.name: each.severity for each in found.findings if each.severity != "note"}
