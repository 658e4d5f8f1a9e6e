"""What is said through the pipe of a policy's process: questions and answers as bytes.

Arrays go as their own bytes, and nothing as an object of a class of ours. Pickle does that in 2 us instead of 10; and
where a plan has just driven pickle's and NumPy's code out of a processor's caches, that is 0.2 ms less a plan.

Letters: B batch, To/Tp = obs_horizon/pred_horizon, Da the axes of one action.
"""

import pickle
from typing import Any

import numpy as np

from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.chunk import Array, FloatArray, KnownActions

Flat = tuple[str, tuple[int, ...], bytes]
"""An array's dtype, shape and content, C order."""


def question(obs: dict[str, Array], noise: FloatArray | None, known: KnownActions | None = None) -> bytes:
    """Returns what `asked` reads.

    Args:
        obs: {key: (B, To, *shape)}.
        noise: see `ChunkPolicy.predict`.
        known: for `predict_guided`; None asks for `predict`.

    Raises:
        ObservationError: an observation is not of numbers.
    """
    flat_obs = {key: _flat(value) for key, value in obs.items()}
    flat_known = None if known is None else (_flat(known.actions), _flat(known.weight))
    return pickle.dumps((flat_obs, None if noise is None else _flat(noise), flat_known))


def asked(said: bytes) -> tuple[dict[str, Array], FloatArray | None, KnownActions | None]:
    """Returns observations, noise and known actions of a question."""
    obs, noise, known = pickle.loads(said)
    return (
        {key: _array(flat) for key, flat in obs.items()},
        None if noise is None else _array(noise),
        None if known is None else KnownActions(*map(_array, known)),
    )


def answer(prediction: FloatArray, seconds: float) -> bytes:
    """Returns what `answered` reads, after unpickling: what was predicted, (B, Tp, *Da), and how long that took."""
    return pickle.dumps((_flat(prediction), seconds))


def answered(said: tuple[Flat, float]) -> tuple[FloatArray, float]:
    """Returns the prediction (B, Tp, *Da), and how many seconds it took."""
    return _array(said[0]), said[1]


def _flat(value: Any) -> Flat:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":  # others are more than a word and bytes tell, or nothing that a network reads
        raise ObservationError(f"expected arrays of numbers, but got one of {array.dtype}")
    return array.dtype.str, array.shape, array.tobytes()


def _array(flat: Flat) -> Any:
    dtype, shape, content = flat
    return np.frombuffer(bytearray(content), dtype).reshape(shape)  # a bytearray: as writable as the original
