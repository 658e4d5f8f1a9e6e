"""A replay of real transitions that also holds synthetic ones, and mixes both in an exact share of every batch.

Letters: T steps held, E environments side by side, N = T E rows, B rows of a batch, O numbers of the observation.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from diffusion_policy.augment.declared import check_declared, declared
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.rollout.environments import BOX_FIELD


class MixedReplayBuffer(ReplayBuffer):
    """Stable-baselines3's replay, whose batches are in part synthetic.

    Real transitions are stored and drawn as `ReplayBuffer` does. Once there are synthetic ones, a batch of B rows ends
    with exactly round(ratio B) of them, drawn with replacement from the chance that stable-baselines3 seeds
    (`np.random`); they are neither counted, nor overwritten as the real ones grow old, nor stored among them.

    Args:
        buffer_size: real transitions held, of all environments together.
        observation_space: a Box of numbers; no pictures. Of whole ones (by its dtype) so are the synthetic ones.
        action_space: a Box with bounds. Actions are held in [-1, 1], as stable-baselines3 scales them.
        device: of the batches.
        n_envs: E.
        optimize_memory_usage: refused; it does not keep what followed the last step of an episode.
        handle_timeout_termination: an episode that a time limit cut short is not terminated.
        ratio: share of synthetic rows in a batch, in [0, 1).
        rounded: numbers of the observation that are whole: "observation[3]"; all are where its dtype says so.
        one_hot: ranges of it of which one is 1 and the others 0: "observation[4:8]".

    Raises:
        ConfigError: a space or setting that this replay cannot have.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        ratio: float = 0.5,
        rounded: Sequence[str] = (),
        one_hot: Sequence[str] = (),
    ) -> None:
        check_spaces(observation_space, action_space)
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
            raise ConfigError(f"ratio must be in [0, 1), the share of synthetic rows in a batch, but got {ratio!r}")
        if optimize_memory_usage:
            raise ConfigError("optimize_memory_usage: expected false, as next observations are needed; got true")
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs=n_envs,
            handle_timeout_termination=handle_timeout_termination,
        )
        self.ratio = float(ratio)
        assert isinstance(observation_space, spaces.Box)  # checked above
        self.columns = _columns(observation_space, self.action_dim, rounded, one_hot)
        self._synthetic: tuple[NDArray[Any], ...] = ()  # observations, actions, next observations, dones, rewards

    @property
    def action_bounds(self) -> Bounds:
        """What actions are scaled to."""
        return (-1.0,) * self.action_dim, (1.0,) * self.action_dim

    @property
    def num_real(self) -> int:
        """N, the real transitions held."""
        return self.size() * self.n_envs

    @property
    def num_synthetic(self) -> int:
        """The synthetic transitions held."""
        return len(self._synthetic[0]) if self._synthetic else 0

    def real_transitions(self) -> Transitions:
        """Returns a copy of the real rows (N, 2 O + A + 2): in the order of storage, an episode's end as it was.

        Where a time limit ended an episode, s' is what the environment showed last, and the row is not terminal.

        Raises:
            ConfigError: what is declared whole, or one of several, is not.
        """
        held, rows = self.size(), self.num_real
        terminated = self.dones[:held] * (1 - self.timeouts[:held])
        parts = (self.observations[:held], self.actions[:held], self.rewards[:held])
        later = (self.next_observations[:held], terminated)
        arrays = [np.asarray(part, np.float32) for part in (*parts, *later)]  # (T, E, *shape) each
        flat = [part.reshape(rows, int(np.prod(part.shape[2:]))) for part in arrays]
        table = Transitions(self.columns, np.concatenate(flat, axis=1))
        check_declared(table, "the environment")
        return table

    def replace_synthetic(self, table: Transitions) -> None:
        """Forgets the synthetic transitions held, and takes others.

        Args:
            table: in the units of the real ones: rewards and observations as the environment gives them, actions in
                [-1, 1], terminals 0 or 1.

        Raises:
            DataError: other columns, no rows, a number that is not finite, an action out of bounds, or a terminal
                or declared number that is none of its kind.
        """
        if table.columns.size != self.columns.size or table.columns.action_size != self.action_dim:
            raise DataError(
                f"expected {self.columns.size} columns, {self.action_dim} of them of the action, but got "
                f"{table.columns.size} and {table.columns.action_size}"
            )
        terminals = table.rows[:, table.columns.terminal_at]
        if not len(table) or not np.isfinite(table.rows).all():
            raise DataError("synthetic transitions: expected rows of finite numbers, but got none, or NaN or infinity")
        if np.abs(table.action).max() > 1 or not np.isin(terminals, (0, 1)).all():
            raise DataError(
                "synthetic transitions: expected actions in [-1, 1] and terminals 0 or 1; settle them first"
            )
        try:
            check_declared(Transitions(self.columns, table.rows), "synthetic transitions")
        except ConfigError as error:
            raise DataError(f"{error}, or settle them first") from error
        self._synthetic = (
            self._observations(table.obs),
            table.action.astype(self.actions.dtype),
            self._observations(table.next_obs),
            terminals.reshape(-1, 1).copy(),
            table.reward.reshape(-1, 1).copy(),
        )

    def _observations(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Returns rows (N, O) as the real ones are held; whole numbers within what the environment can show.

        Without these limits one that is drawn a little below 0 would become 255, or the like.
        """
        shaped = rows.reshape(len(rows), *self.obs_shape)
        if self.columns.rounded:
            assert isinstance(self.observation_space, spaces.Box)
            shaped = np.clip(shaped.astype(np.float64), self.observation_space.low, self.observation_space.high)
        return shaped.astype(self.observations.dtype)

    def synthetic_rows(self, batch_size: int) -> int:
        """Returns how many rows of a batch of B are synthetic."""
        return round(self.ratio * batch_size) if self._synthetic else 0

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Returns B rows: the real ones, then the synthetic ones.

        Args:
            batch_size: B.
            env: normalises observations and rewards of both alike.
        """
        count = self.synthetic_rows(batch_size)
        real = super().sample(batch_size - count, env)
        if not count:
            return real
        ids = np.random.randint(0, self.num_synthetic, size=count)
        obs, actions, next_obs, dones, rewards = (part[ids] for part in self._synthetic)
        drawn = (
            self._normalize_obs(obs, env),
            actions,
            self._normalize_obs(next_obs, env),
            dones,
            self._normalize_reward(rewards, env),
        )
        arrays = (np.asarray(part) for part in drawn)
        both = [torch.cat([mine, self.to_torch(theirs)]) for mine, theirs in zip(real[:5], arrays, strict=True)]
        return ReplayBufferSamples(*both)


def _columns(
    observation_space: spaces.Box, action_size: int, rounded: Sequence[str], one_hot: Sequence[str]
) -> Columns:
    """Returns the columns of a table; all numbers of a space of whole ones are declared as such in s and s'."""
    if of_actions := [name for name in (*rounded, *one_hot) if name.partition("[")[0] == "action"]:
        raise ConfigError(f"rounded, one_hot: actions are continuous here, but got {of_actions[0]}; name observations")
    columns = declared(Columns({BOX_FIELD: observation_space.shape}, (action_size,)), rounded, one_hot)
    if np.dtype(observation_space.dtype).kind not in "iu":
        return columns
    hot = {column for start, stop in columns.one_hot for column in range(start, stop)}
    both = chain(*(range(each.start, each.stop) for each in (columns.obs_at, columns.next_obs_at)))
    return replace(columns, rounded=tuple(column for column in both if column not in hot))


def check_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Raises ConfigError unless observations are numbers without names and actions continuous and bounded."""
    if not isinstance(observation_space, spaces.Box):
        raise ConfigError(
            f"expected observations of one array of numbers (Box), but got {observation_space}; flatten them with "
            f"gymnasium.wrappers.FlattenObservation"
        )
    if is_image_space(observation_space, check_channels=False):
        raise ConfigError(
            f"expected observations of numbers, but got pictures of shape {observation_space.shape}; transitions of "
            f"pictures are not modelled"
        )
    if not isinstance(action_space, spaces.Box):
        raise ConfigError(f"expected continuous actions (Box), but got {action_space}; SAC and TD3 take no others")
    if not action_space.is_bounded():
        raise ConfigError(f"expected actions with finite bounds, but got {action_space}; bound them by a wrapper")
