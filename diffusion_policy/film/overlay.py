"""What a policy might do next, drawn on a film: several sampled chunks at every prediction, so that one sees its modes.

Letters: K samples, To obs_horizon, Tp pred_horizon, Da numbers of an action.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.action_marks import ActionPixels, Floats, draw_path
from diffusion_policy.film.picture import Picture
from diffusion_policy.policies.chunk import Array, ChunkPolicy

_DOT, _SMALLEST_DOT = 0.006, 1.2  # radius: of the picture's width, and px


class ChunkOverlay:
    """Samples chunks of its own for the episodes of a film, and draws what is left of them on every frame.

    The policy that acts draws its noise elsewhere: with and without an overlay the episodes are the same.

    Args:
        policy: what predicts.
        action_pixels: the environment's.
        samples: K.
    """

    def __init__(self, policy: ChunkPolicy, action_pixels: ActionPixels, samples: int = 12) -> None:
        if samples < 1:
            raise ConfigError(f"an overlay needs samples >= 1, but got {samples}")
        self._policy, self._action_pixels, self._samples = policy, action_pixels, samples
        self._chunks: dict[int, Floats] = {}  # episode -> (K, Tp - To + 1, Da), from the moment of the prediction on
        self._age: dict[int, int] = {}  # env steps since then

    def forget(self, episode: int) -> None:
        """An episode begins, perhaps again."""
        self._chunks.pop(episode, None)

    def predict(self, episode: int, window: Mapping[str, Array], seed: int) -> None:
        """Samples chunks for what an episode sees now.

        Args:
            episode: of the film.
            window: {key: (To, *shape)}.
            seed: fixes the samples' noise.
        """
        noise = np.random.default_rng(seed).standard_normal((self._samples, *self._policy.noise_shape), np.float32)
        obs = {key: np.repeat(values[None], self._samples, axis=0) for key, values in window.items()}
        prediction = np.asarray(self._policy.predict(obs, noise).prediction, np.float64)  # (K, Tp, *Da)
        ahead = prediction[:, self._policy.horizons.start :]
        self._chunks[episode] = ahead.reshape(self._samples, -1, self._policy.action_spec.size)
        self._age[episode] = 0

    def marked(self, episode: int, picture: Picture) -> Picture:
        """Returns the picture of the next env step with the actions that were still to come, if any were predicted."""
        chunks = self._chunks.get(episode)
        if chunks is None:
            return picture
        self._age[episode] += 1
        frame = picture.frame()
        radius = max(_SMALLEST_DOT, _DOT * frame.shape[1])
        for chunk in chunks[:, self._age[episode] :]:
            frame = draw_path(frame, self._action_pixels(chunk, frame.shape[1]), radius)
        return Picture.of(frame, picture.width)


def make_overlay(policy: ChunkPolicy, env: gym.Env[Any, Any], env_id: str) -> ChunkOverlay:
    """Returns the overlay for films of an environment.

    Raises:
        ConfigError: the environment does not say where actions lie on its pictures.
    """
    action_pixels = getattr(env.unwrapped, "action_pixels", None)
    if not callable(action_pixels):
        raise ConfigError(
            f"overlay=true draws actions on pictures: expected a method action_pixels(actions, size) of {env_id}'s "
            f"{type(env.unwrapped).__name__}, but it has none; add one, or film without overlay"
        )
    return ChunkOverlay(policy, action_pixels)
