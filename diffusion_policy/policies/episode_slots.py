"""The memory of episodes that run side by side: what each has seen, what it will send, where its noise comes from.

Letters: E envs, R slots that need a prediction, To/Ta = obs_horizon/action_horizon, Da the axes of one action.
"""

import numpy as np

from diffusion_policy.config import ActionSpec, Horizons
from diffusion_policy.policies.chunk import Array, FloatArray

_NOISE_STREAM = 1  # an env seeded with the same number draws from stream 0: start and noise must not be related


class EpisodeSlots:
    """The state of E episodes that run side by side.

    Attributes:
        window: {key: (E, To, *shape)}, oldest first; empty before the first observation.
        queue: (E, Ta, *Da), of which the last `left` actions are still to be sent.
        left: (E,) int.
        fresh: (E,) bool, slots that have not seen an observation in this episode.
        generators: E sources of noise.
    """

    def __init__(
        self, num_envs: int, single: bool, seeds: list[int] | None, horizons: Horizons, action_spec: ActionSpec
    ) -> None:
        self.num_envs, self.single, self.horizons = num_envs, single, horizons
        self.window: dict[str, Array] = {}
        self.queue = np.zeros((num_envs, horizons.action_horizon, *action_spec.shape), dtype=np.float32)
        self.left = np.zeros(num_envs, dtype=np.int64)
        self.fresh = np.ones(num_envs, dtype=bool)
        self.generators = [noise_generator(None if seeds is None else seeds[slot]) for slot in range(num_envs)]

    def begin(self, slot: int, seed: int | None) -> None:
        """Empties one slot; the next observation is the first of an episode with this seed."""
        self.left[slot], self.fresh[slot] = 0, True
        self.generators[slot] = noise_generator(seed)

    def advanced(self, obs: dict[str, Array], rows: Array) -> dict[str, Array]:
        """Returns the windows with one more observation in the given slots; changes nothing."""
        To = self.horizons.obs_horizon
        moved = {}
        for key, now in obs.items():
            filled = np.repeat(now[:, None], To, axis=1)  # (E, To, *shape)
            old = self.window.get(key, filled)
            moved[key] = np.concatenate([old[:, 1:], now[:, None]], axis=1)
            moved[key][self.fresh] = filled[self.fresh]
            moved[key][~rows] = old[~rows]
        return moved

    def noise(self, rows: Array, shape: tuple[int, ...]) -> FloatArray:
        """Returns (R, *shape) standard-normal noise, each row from its slot's generator."""
        drawn = [self.generators[row].standard_normal(shape, dtype=np.float32) for row in rows]
        return np.stack(drawn).astype(np.float32, copy=False)

    def upcoming(self, slot: int) -> FloatArray:
        """Returns (N, *Da): what is left in a slot's queue."""
        Ta = self.horizons.action_horizon
        return self.queue[slot, Ta - int(self.left[slot]) :].copy()

    def pop(self, rows: Array) -> FloatArray:
        """Returns (E, *Da): the next action of the given slots, zeros for the others."""
        actions = np.zeros((self.num_envs, *self.queue.shape[2:]), dtype=np.float32)
        chosen = np.flatnonzero(rows)
        actions[chosen] = self.queue[chosen, self.horizons.action_horizon - self.left[chosen]]
        self.left[chosen] -= 1
        return actions


def noise_generator(seed: int | None) -> np.random.Generator:
    """Returns the source of an episode's noise; None draws fresh entropy."""
    return np.random.default_rng(None if seed is None else np.random.SeedSequence(seed, spawn_key=(_NOISE_STREAM,)))
