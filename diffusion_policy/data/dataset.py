"""Training batches gathered from rows in memory (pictures: or a file): no DataLoader, no workers, no copied windows.

Letters: B windows, N steps of the chosen episodes; To, Tp horizons; Da action size.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.config import ActionSpec, Horizons, ObsSpec
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.loading import load_obs
from diffusion_policy.data.mirror import Mirror, mirrored
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.residence import Residence
from diffusion_policy.data.rows import MirroredRows, Remembered, ResidentRows, Rows
from diffusion_policy.data.source import read_action
from diffusion_policy.data.windows import WindowIndex
from diffusion_policy.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_MIRRORED_AT_ONCE = 512  # steps: pictures are seen by the mirror, but not kept


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows in the data's own units; normalisation belongs to the policy.

    Args:
        obs: {key: (B, To, *shape)} float32, images uint8.
        action: (B, Tp, Da) float32.
    """

    obs: dict[str, Tensor]
    action: Tensor


class WindowDataset:
    """The windows of some episodes, resident on one device.

    Args:
        obs: {key: (N, *shape)} float32 or uint8, or rows that lie elsewhere.
        action: (N, Da) float32.
        index: the windows over these N steps.
        device: where the tensors live and the batches are gathered.
    """

    def __init__(
        self,
        obs: Mapping[str, Tensor | Rows],
        action: Tensor,
        index: WindowIndex,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.index = index
        self.device = torch.device(device)
        self._action = action.to(self.device).contiguous()
        self._obs: dict[str, Rows] = {
            key: ResidentRows(values.to(self.device)) if isinstance(values, Tensor) else values
            for key, values in obs.items()
        }
        self._bounds = torch.from_numpy(index.bounds(np.arange(len(index)))).to(self.device)  # (windows, 3)
        self._offsets = torch.arange(index.horizons.pred_horizon, device=self.device)

    @classmethod
    def from_buffer(
        cls,
        buffer: ReplayBuffer,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        horizons: Horizons,
        *,
        episodes: Sequence[int] | NDArray[np.integer] | None = None,
        drop_short: bool = False,
        device: str | torch.device = "cpu",
        residence: Residence | None = None,
    ) -> "WindowDataset":
        """Returns the windows of a replay buffer; only the keys that the specs need are read.

        Args:
            buffer: the episodes.
            obs_spec: fields to read; see `source` for how they are found.
            action_spec: likewise for actions.
            horizons: To, Ta, Tp.
            episodes: which episodes; None for all.
            drop_short: leave out episodes shorter than Tp, instead of refusing them.
            device: where to keep the tensors.
            residence: how much may be kept; half of the free memory when None.

        Raises:
            DataError: no such episode or key, another shape, not finite, or an episode shorter than a window.
            StorageError: pictures that do not fit into memory cannot be written to a file.
        """
        chosen = _chosen(buffer, episodes)
        ends = np.cumsum(lengths(buffer.episode_ends)[chosen])
        try:
            index = WindowIndex(ends, horizons, episode_ids=chosen, drop_short=drop_short)
        except DataError as error:
            raise DataError(f"{buffer.location}: {error}") from None
        if index.dropped:
            logger.warning("%s: left out episodes %s, shorter than a window", buffer.location, index.dropped)
            chosen = np.setdiff1d(chosen, index.dropped)
            index = WindowIndex(np.cumsum(lengths(buffer.episode_ends)[chosen]), horizons, episode_ids=chosen)
        obs = load_obs(obs_spec, buffer, chosen, residence or Residence(), torch.device(device))
        action = torch.from_numpy(read_action(action_spec, buffer, chosen))
        return cls(obs, action, index, device=device)

    def with_mirrored(
        self,
        mirror: Mirror,
        action_shape: tuple[int, ...] | None = None,
        on_step: Callable[[int], None] = lambda _: None,
    ) -> "WindowDataset":
        """Returns the windows of these episodes and, after them, of their mirror images.

        Numbers are mirrored now, all of them; pictures when a batch needs them.

        Args:
            mirror: the mirror image of steps; it always sees all fields.
            action_shape: of the actions it is given; (Da,) when None.
            on_step: called with the steps mirrored so far, for a progress bar.

        Raises:
            DataError: what the mirror returns does not fit.
        """
        shape = action_shape or tuple(self._action.shape[1:])

        def image(steps: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            seen = {key: rows.take(steps).cpu().numpy() for key, rows in self._obs.items()}
            done = self._action.index_select(0, steps).cpu().numpy().reshape(len(steps), *shape)
            images, targets = mirrored(mirror, seen, done)
            obs = {key: torch.from_numpy(values).to(self.device) for key, values in images.items()}
            return obs, torch.from_numpy(targets.reshape(len(steps), -1)).to(self.device)

        remembered = Remembered(image)

        def picture(key: str) -> Callable[[Tensor], Tensor]:
            return lambda steps: remembered(steps)[0][key]

        blocks = torch.split(torch.arange(self.num_steps, device=self.device), _MIRRORED_AT_ONCE)
        images = []
        for block in blocks:
            seen, targets = image(block)
            images.append(({key: seen[key] for key in self._numbers}, targets))
            on_step(int(block[-1]) + 1)
        obs: dict[str, Tensor | Rows] = {}
        for key, rows in self._obs.items():
            if key in self._numbers:
                obs[key] = torch.cat([self.all_obs(key), *(each[key] for each, _ in images)])
            else:
                obs[key] = MirroredRows(rows, picture(key))
        index = self.index
        ends = np.concatenate([index.episode_ends, index.episode_ends + self.num_steps])
        names = np.concatenate([index.episode_ids, index.episode_ids])
        both = torch.cat([self._action, *(action for _, action in images)])
        return WindowDataset(obs, both, WindowIndex(ends, index.horizons, episode_ids=names), device=self.device)

    @property
    def _numbers(self) -> list[str]:
        """The fields that are in memory as float32."""
        return [key for key, rows in self._obs.items() if isinstance(rows, ResidentRows) and rows.dtype != torch.uint8]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.index)

    @property
    def num_steps(self) -> int:
        """N, steps of the chosen episodes."""
        return len(self._action)

    def batch(self, ids: Tensor | NDArray[np.integer]) -> Batch:
        """Returns windows by number: the hot path of training.

        Args:
            ids: (B,) whole numbers in [0, len(self)).
        """
        return self.window_at(self._bounds.index_select(0, torch.as_tensor(ids, device=self.device)))

    def window_at(self, bounds: Tensor) -> Batch:
        """Returns windows that begin anywhere; beyond an episode its edge steps are repeated.

        Args:
            bounds: (B, 3) first step, first and last step of its episode, as of `WindowIndex.bounds`.
        """
        first, low, high = bounds.T[:, :, None]  # each (B, 1)
        steps = torch.clamp(first + self._offsets, low, high)  # (B, Tp)
        obs = self.obs_at(steps[:, : self.index.horizons.obs_horizon])
        return Batch(obs, self._action.index_select(0, steps.view(-1)).view(*steps.shape, -1))

    def obs_at(self, steps: Tensor) -> dict[str, Tensor]:
        """Returns what was seen at steps (B, To), whole numbers in [0, N): {key: (B, To, *shape)}."""
        flat = steps.reshape(-1)
        return {key: rows.take(flat).view(*steps.shape, *rows.shape[1:]) for key, rows in self._obs.items()}

    @property
    def resident_bytes(self) -> int:
        """Bytes of the observations that are in memory."""
        return sum(rows.values.nbytes for rows in self._obs.values() if isinstance(rows, ResidentRows))

    def all_actions(self) -> Tensor:
        """Returns the actions of all steps, (N, Da), for fitting a normaliser."""
        return self._action

    def all_obs(self, key: str) -> Tensor:
        """Returns one field of all steps, (N, *shape), for fitting a normaliser; none that may lie on the disk."""
        rows = self._obs[key]
        if not isinstance(rows, ResidentRows):
            raise DataError(f"obs.{key} is not in memory as a whole; pictures need no normaliser")
        return rows.values

    def describe(self, ids: Tensor | NDArray[np.integer] | Sequence[int], *, limit: int = 5) -> str:
        """Returns where windows lie, in one line for an error message; the first `limit` of them."""
        numbers = [int(i) for i in ids]
        listed = "; ".join(f"window {i}: {self.index.describe(i)}" for i in numbers[:limit])
        return listed + (f"; and {len(numbers) - limit} more" if len(numbers) > limit else "")


def split_episodes(
    num_episodes: int,
    *,
    val_ratio: float,
    seed: int,
    max_episodes: int | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns (training episodes, validation episodes), sorted: whole episodes, so no window is in both.

    Validation is drawn first: round(M val_ratio) episodes, at least one and never all. Then what is not allowed is
    left out of both, and, if asked, a subset of the others drawn. Both draws start from the same seed, which is the
    published split of Chi et al. (2023): seed 42, ratio 0.02, 90 episodes select the very episodes of the paper's
    Push-T results.

    Args:
        num_episodes: M.
        val_ratio: share held out, in [0, 1); with M = 1 nothing is.
        seed: of NumPy's default generator.
        max_episodes: train on at most so many.
        allowed: (M,) which episodes may be used; None for all.

    Raises:
        ConfigError: a number out of range, or no training episode is left.
    """
    if not 0 <= val_ratio < 1:
        raise ConfigError(f"val_ratio must be in [0, 1), but got {val_ratio}; 0.02 holds out 2 % of the episodes")
    if max_episodes is not None and max_episodes < 1:
        raise ConfigError(f"data.episodes must be at least 1, or null for all, but got {max_episodes}")
    held_out = np.zeros(num_episodes, bool)
    if val_ratio > 0 and num_episodes >= 2:
        count = min(max(1, round(num_episodes * val_ratio)), num_episodes - 1)
        held_out[np.random.default_rng(seed).choice(num_episodes, count, replace=False)] = True
    usable = np.ones(num_episodes, bool) if allowed is None else allowed
    train = np.flatnonzero(~held_out & usable)
    if num_episodes and not len(train):
        raise ConfigError(
            f"none of the {np.sum(~held_out)} training episodes may be used; collect more, or ask for less"
        )
    if max_episodes is not None and len(train) > max_episodes:
        train = np.sort(train[np.random.default_rng(seed).choice(len(train), max_episodes, replace=False)])
    return train, np.flatnonzero(held_out & usable)


def _chosen(buffer: ReplayBuffer, episodes: Sequence[int] | NDArray[np.integer] | None) -> NDArray[np.int64]:
    chosen = np.arange(buffer.num_episodes) if episodes is None else np.unique(np.asarray(episodes, np.int64))
    if not chosen.size:
        raise DataError(f"{buffer.location}: expected at least one episode, but got none; collect or choose some")
    if chosen[0] < 0 or chosen[-1] >= buffer.num_episodes:
        raise DataError(
            f"{buffer.location}: episodes must be in [0, {buffer.num_episodes}), but got {chosen[0]}..{chosen[-1]}"
        )
    return chosen
