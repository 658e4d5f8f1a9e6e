"""What every format is given to write: checked episodes with our names, and what is known of them.

Letters: N steps of all episodes, M episodes, T steps of one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.reading import Column, Episode, Option
from diffusion_policy.data.images import as_uint8
from diffusion_policy.data.incoming import KeyForm
from diffusion_policy.errors import DataError
from diffusion_policy.rates import told_rate
from diffusion_policy.registry import Registry


@dataclass(frozen=True)
class Content:
    """A data set on its way into another format.

    Args:
        episodes: {key: (T, *shape)} each, T >= 1, finite numbers, keys and forms as in `forms`; to be read once.
        forms: {key: (shape of a step, dtype)}, sorted by key, known before the first episode is read.
        num_steps: N, as the source says.
        num_episodes: M, None where only reading all would tell.
        facts: the provenance: env_id, kwargs, action_bounds, control_hz, converted_from, versions ...; plain values.
        where: the source, for messages.
    """

    episodes: Iterator[Episode]
    forms: Mapping[str, KeyForm]
    num_steps: int
    num_episodes: int | None
    facts: Mapping[str, Any]
    where: str

    @property
    def control_hz(self) -> float | None:
        """Steps a second, None where nobody said."""
        return told_rate(self.facts)


@dataclass(frozen=True)
class Target:
    """A format that can be written.

    Args:
        what: it is, for people.
        recognizes: whether a place to write to looks like one of this format; only by its name.
        plan: `plan(content, **options)` returns a column for each key: `name` is ours, `becomes` the format's. It
            reads no episode, and raises DataError or ConfigError for what the format cannot hold.
        write: `write(content, built, **options)` makes the file or folder `built`, which is named as the user named
            it and lies in an empty folder of its own, where more may be left: `convert` moves `built` to its place in
            one step when it is complete, and removes the rest after any failure. Progress is counted by `convert`, too.
        options: that `plan` and `write` take, those that were given.
    """

    what: str
    recognizes: Callable[[Path], bool]
    plan: Callable[..., Sequence[Column]]
    write: Callable[..., None]
    options: tuple[Option, ...] = ()


_MIN_PICTURE = 8  # pixels; below, an array of three axes is something else

TARGETS: Registry[Target] = Registry("format to write")


def is_picture(form: KeyForm) -> bool:
    """Returns whether a key holds pictures 0-255, (height, width, channels): uint8, or float of three channels."""
    shape, dtype = form
    channels = (1, 3, 4) if dtype == np.uint8 else (3,) if dtype.kind == "f" else ()
    return len(shape) == 3 and shape[2] in channels and min(shape[:2]) >= _MIN_PICTURE


def whole_pictures(values: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """Returns pictures as uint8, without loss.

    Args:
        values: (T, H, W, C), 0-255; the field's files also store them as floats.
        where: the key, for messages.

    Raises:
        DataError: they are none of 0-255, or hold fractions.
    """
    pictures = as_uint8(values, where)
    if pictures is not values and (pictures != values).any():
        raise DataError(f"{where} must hold pictures of whole numbers 0-255, but it has fractions; round or scale them")
    return pictures
