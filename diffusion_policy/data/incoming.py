"""What may enter a replay buffer: whole, finite episodes that look like the ones before."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import DataError

KeyForm = tuple[tuple[int, ...], np.dtype[Any]]  # shape of one step, dtype

_WRITE_BYTES = 8 << 20  # episodes are written together up to this: each write costs as much as a thousand small steps
_SEVERAL = 1000  # ... and at most so many


def checked_episode(episode: Mapping[str, Any], known: Mapping[str, KeyForm], where: str) -> dict[str, NDArray[Any]]:
    """Returns an episode as arrays, sorted by key.

    Args:
        episode: {key: (T, *shape)} anything NumPy takes, T >= 1.
        known: shape and dtype of each key of the earlier episodes; empty before the first.
        where: the data set's name, for messages.

    Raises:
        DataError: keys, lengths, shapes, dtypes or values do not fit; nothing was written.
    """
    arrays = {key: np.asarray(episode[key]) for key in sorted(episode)}
    if not arrays or (known and list(arrays) != sorted(known)):
        expected = f"the keys {', '.join(sorted(known))}" if known else "at least one key"
        raise DataError(f"{where}: an episode must have {expected}, but got {', '.join(arrays) or 'none'}")
    steps = {key: len(values) if values.ndim else 0 for key, values in arrays.items()}
    if len(set(steps.values())) != 1 or min(steps.values()) < 1:
        listed = ", ".join(f"{key} {count}" for key, count in steps.items())
        raise DataError(f"{where}: all keys of an episode must have the same number of steps, at least 1, got {listed}")
    for key, values in arrays.items():
        _check_form(key, values, known.get(key), where)
        _check_finite(key, values, where)
    return arrays


def _check_form(key: str, values: NDArray[Any], known: KeyForm | None, where: str) -> None:
    if not key or "/" in key or key.startswith("."):
        raise DataError(f"{where}: a key must be a plain name without '/', but got '{key}'")
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: '{key}' must hold numbers, but got dtype {values.dtype}; convert it to an array first"
        )
    form = (values.shape[1:], values.dtype)
    if known is not None and form != known:
        raise DataError(
            f"{where}: '{key}' must be {known[1]} of shape (T, {', '.join(map(str, known[0]))}) as in the episodes "
            f"before, but got {values.dtype} of shape {values.shape}; convert it with .astype or .reshape"
        )


def _check_finite(key: str, values: NDArray[Any], where: str) -> None:
    if values.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.size:
        raise DataError(
            f"{where}: '{key}' must be finite, but step {bad[0]} of this episode holds NaN or infinity "
            f"({bad.size} of {len(values)} steps); repair it, or leave out the episode or key (dp-convert --without)"
        )


def together(episodes: Iterator[dict[str, NDArray[Any]]]) -> Iterator[list[dict[str, NDArray[Any]]]]:
    """Yields episodes in lists that are worth a write each."""
    waiting: list[dict[str, NDArray[Any]]] = []
    size = 0
    for episode in episodes:
        waiting.append(episode)
        size += sum(values.nbytes for values in episode.values())
        if size >= _WRITE_BYTES or len(waiting) >= _SEVERAL:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting
