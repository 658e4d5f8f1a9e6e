"""A policy as some engine computes it: NumPy in, NumPy out, one function in between. Imports no engine.

Letters: B batch, To/Tp obs/pred horizon, Da the axes of one action.
"""

from collections.abc import Callable, Mapping

import numpy as np

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import ActionChunk, Array, FloatArray, KnownActions
from diffusion_policy.policies.engines.description import Described, Description
from diffusion_policy.policies.observation_check import check_noise, check_windows

Run = Callable[[list[Array], FloatArray], FloatArray]
"""(fields of `obs_spec` in its order, each (B, To, *shape); noise (B, *noise_shape)) -> prediction (B, Tp, *Da)."""

Guide = Callable[[dict[str, Array], FloatArray | None, KnownActions], ActionChunk[Array]]
"""As `GuidedChunkPolicy.predict_guided`."""


class EnginePolicy(Described):
    """Obeys `ChunkPolicy`; stateless but for the generator of the noise that nobody gives.

    Args:
        description: what a controller has to know.
        run: computes the prediction.
        engine: its name, for reports: "eager float32", "onnxruntime", ...
        guide: computes predictions that agree with known actions; None where the engine cannot.
    """

    def __init__(self, description: Description, run: Run, engine: str, guide: Guide | None = None) -> None:
        self.description, self.engine, self._run, self._guide = description, engine, run, guide
        self._rng = np.random.default_rng()

    def predict(self, obs: Mapping[str, Array], noise: FloatArray | None = None) -> ActionChunk[Array]:
        """Returns one chunk a row; see `ChunkPolicy`.

        Raises:
            ObservationError: a key, a shape or a picture's dtype is not as in `obs_spec`.
        """
        rows = check_windows(obs, self.obs_spec, self.horizons.obs_horizon)
        if noise is None:
            noise = self._rng.standard_normal((rows, *self.noise_shape), np.float32)
        check_noise(noise, rows, self.noise_shape)
        inputs = [
            np.ascontiguousarray(obs[key], np.uint8 if field.is_picture else np.float32)
            for key, field in self.obs_spec.items()
        ]
        return ActionChunk.of(self._run(inputs, np.ascontiguousarray(noise, np.float32)), self.horizons)

    def predict_guided(
        self, obs: dict[str, Array], noise: FloatArray | None, known: KnownActions
    ) -> ActionChunk[Array]:
        """See `GuidedChunkPolicy`; it needs gradients, which exported files have not."""
        if self._guide is None:
            raise ConfigError(
                f"engine {self.engine} computes no gradients, so its chunks cannot be guided; load the policy.pt, or "
                f"choose another strategy"
            )
        return self._guide(obs, noise, known)
