"""From a data set on a disk to the rows that training batches are gathered from."""

import logging

import numpy as np
import torch

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.data.episodes import Ends, lengths
from diffusion_policy.data.images import image_blocks
from diffusion_policy.data.raw_file import has_files, raw_file
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence, readable
from diffusion_policy.data.rows import FileRows, ResidentRows, Rows
from diffusion_policy.data.source import read_obs

logger = logging.getLogger(__name__)


def load_obs(
    obs_spec: ObsSpec, buffer: ReplayBuffer, episodes: Ends, residence: Residence, device: torch.device
) -> dict[str, Rows]:
    """Returns the observations of some episodes, in memory or, where they are too large, in files; says the size first.

    Args:
        obs_spec: the fields to read.
        buffer: the data set.
        episodes: sorted, distinct.
        residence: how much may stay in memory.
        device: of what stays there.

    Raises:
        DataError: a key is missing, has another shape, or holds values that are not finite or no pixels.
        StorageError: a file of pictures cannot be written.
    """
    steps = int(lengths(buffer.episode_ends)[episodes].sum())
    pictures = {key for key, field in obs_spec.items() if field.is_picture}
    sizes = {key: steps * field.size * (1 if key in pictures else 4) for key, field in obs_spec.items()}
    limit = residence.limit_bytes(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None)
    moved = residence.to_file(sizes, pictures if has_files(buffer) else set(), limit)
    if pictures:
        kept = sum(size for key, size in sizes.items() if key not in moved)
        logger.info("data: %d steps, %s in memory (limit %s)", steps, readable(kept), readable(limit))
    rows: dict[str, Rows] = {}
    for key, field in obs_spec.items():
        if key in moved:
            rows[key] = _from_file(key, field, buffer, episodes, residence)
        elif key in pictures:
            rows[key] = ResidentRows(_pictures(key, field, buffer, episodes, residence, steps).to(device))
        else:
            rows[key] = ResidentRows(torch.from_numpy(read_obs(key, field, buffer, episodes)).to(device))
    return rows


def _pictures(
    key: str, field: ObsField, buffer: ReplayBuffer, episodes: Ends, residence: Residence, steps: int
) -> torch.Tensor:
    images = np.empty((steps, *field.shape), np.uint8)
    at = 0
    for block in image_blocks(key, field, buffer, episodes):
        images[at : at + len(block)] = block
        at += len(block)
        residence.on_steps(len(block))
    return torch.from_numpy(images)


def _from_file(key: str, field: ObsField, buffer: ReplayBuffer, episodes: Ends, residence: Residence) -> FileRows:
    logger.info(
        "data: obs.%s, %s, is over data.memory_limit and read from a file in %s, decoded once",
        key,
        readable(buffer.num_steps * field.size),
        residence.cache,
    )
    path = raw_file(key, field, buffer, residence.cache, residence.on_steps)
    of_episodes = [np.arange(rows.start, rows.stop) for rows in map(buffer.episode_slice, episodes.tolist())]
    return FileRows(path, field.shape, np.concatenate(of_episodes))
