"""Every so many environment steps: a new model of the real transitions, and new synthetic ones in the replay."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from diffusion_policy.errors import ConfigError
from diffusion_policy.online.mixed_buffer import MixedReplayBuffer
from diffusion_policy.online.refit import OnProgress, Refit, RefitConfig, refit


@dataclass(frozen=True)
class Refreshed:
    """A refresh.

    Args:
        env_step: environment steps done before it.
        refit: what was fitted and drawn.
    """

    env_step: int
    refit: Refit


class SyntheticRefresh(BaseCallback):
    """Replaces the synthetic part of a `MixedReplayBuffer` (SynthER, Lu et al. 2023, Algorithm 1, lines 6-9).

    Each refresh fits a model from nothing to all real transitions held, whose columns are measured anew, and discards
    the synthetic ones that were there. It happens where stable-baselines3 is between steps: the last transition is
    stored, and neither the observation that the next action answers nor the random numbers of the agent are touched.

    A refresh that is due before one batch of real transitions is there waits for it, and one due at the very end of
    `learn` is left out: nobody would learn from it.

    Args:
        every: environment steps between two refreshes, of all environments together.
        config: how a model is fitted and drawn from; for processors by default, `PAPER` as published.
        seed: of all refreshes, each of which has seeds of its own; None takes the agent's, or one by chance, which
            `history` tells.
        on_refresh: called after each refresh.
        on_progress: see `refit`.
        verbose: 1 prints a line after each refresh.

    Attributes:
        history: the refreshes, with their seeds.

    Raises:
        ConfigError: `every` is no positive whole number; and when learning begins, if the agent's replay does not mix,
            or never holds a batch.
    """

    def __init__(
        self,
        every: int = 1000,
        config: RefitConfig | None = None,
        *,
        seed: int | None = None,
        on_refresh: Callable[[Refreshed], None] | None = None,
        on_progress: OnProgress = lambda what, done, of: None,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        for name, value, least in (("every", every, 1), ("seed", 0 if seed is None else seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number, {least} or more, but got {value!r}")
        self.every, self.config, self.seed = every, config or RefitConfig(), seed
        self.history: list[Refreshed] = []
        self._on_refresh, self._on_progress = on_refresh, on_progress
        self._passed = 0  # multiples of `every`
        self._end = 0

    def _init_callback(self) -> None:
        replay, batch = mixed_replay(self.model), self.config.loop.batch_size
        if replay.buffer_size * replay.n_envs < batch:
            raise ConfigError(
                f"the replay holds {replay.buffer_size * replay.n_envs} transitions, and a model is fitted to batches "
                f"of {batch}: nothing would ever be synthetic; raise buffer_size, or lower config.loop.batch_size"
            )
        if self.seed is None:
            self.seed = self.model.seed
        if self.seed is None:
            self.seed = int(np.random.SeedSequence().generate_state(1)[0])

    def _on_training_start(self) -> None:
        self._end = self.locals["total_timesteps"]
        if self.num_timesteps == 0:  # a run from the beginning, perhaps not the first one with this callback
            self._passed = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Refreshes when due; at this moment the last transition is stored and no gradient step is under way."""
        passed = self.num_timesteps // self.every
        enough = mixed_replay(self.model).num_real >= self.config.loop.batch_size
        if passed > self._passed and enough and self.num_timesteps < self._end:
            self._passed = passed
            self.refresh()

    def refresh(self) -> Refreshed:
        """Refreshes now.

        Raises:
            ConfigError: no agent learns with it yet.
            DataError: there are fewer real transitions than a batch.
        """
        if getattr(self, "model", None) is None:
            raise ConfigError("refresh: expected an agent that learns with it; call learn(..., callback=...) first")
        replay = mixed_replay(self.model)
        assert self.seed is not None  # since `_init_callback`
        state = np.random.SeedSequence((self.seed, len(self.history))).generate_state(2)
        synthetic, told = refit(
            replay.real_transitions(),
            replay.action_bounds,
            self.config,
            seeds=(int(state[0]), int(state[1])),
            device=self.model.device,
            on_progress=self._on_progress,
        )
        replay.replace_synthetic(synthetic)
        done = Refreshed(self.num_timesteps, told)
        self.history.append(done)
        for name in ("ks_mean", "correlation_mean", "loss"):
            self.logger.record(f"synthetic/{name}", getattr(told, name))
        if self.verbose:
            print(
                f"refresh at env step {done.env_step}: {told.samples} samples, learned from {told.real}: KS complement "
                f"{told.ks_mean:.3f}, correlations {told.correlation_mean:.3f}"
            )
        if self._on_refresh is not None:
            self._on_refresh(done)
        return done


def mixed_replay(model: BaseAlgorithm) -> MixedReplayBuffer:
    """Returns an agent's replay.

    Raises:
        ConfigError: it has none, or one that does not mix.
    """
    replay = getattr(model, "replay_buffer", None)
    if not isinstance(replay, MixedReplayBuffer):
        raise ConfigError(
            f"expected an agent with replay_buffer_class=MixedReplayBuffer, but {type(model).__name__} has "
            f"{'none' if replay is None else type(replay).__name__}; give it to the agent when it is made"
        )
    return replay
