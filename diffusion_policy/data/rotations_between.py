"""Rotations between two others, along the shortest arc, in the forms that data sets keep them in.

The order of a quaternion's numbers, and whether a 6-D rotation holds rows or columns of the matrix, do not matter:
the arc between two rotations is the same in each (it is the shortest, and transposing or reordering keeps distances).
Letters: K rotations.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.rotations import convert

RotationForm = Literal["quaternion", "axis_angle", "6d", "angle", "degrees"]
Floats = NDArray[np.float64]

FORMS: dict[RotationForm, int] = {"quaternion": 4, "axis_angle": 3, "6d": 6, "angle": 1, "degrees": 1}
"""Numbers of each: unit quaternions, rotation vectors (rad), two vectors of a matrix (Zhou et al. 2019), angles."""

_STRAIGHT = 1e-6  # radians between quaternions: below, the straight line is as good and does not divide by zero


def turned(before: Floats, after: Floats, share: Floats, form: RotationForm) -> Floats:
    """Returns rotations between others.

    Args:
        before: (K, ..., n) in a form.
        after: likewise.
        share: (K, ..., 1) of the way from `before` to `after`, in [0, 1]; at 0 the result is `before` to the last bit.
        form: of all.
    """
    share = np.broadcast_to(share, (*before.shape[:-1], 1))
    if form in ("angle", "degrees"):
        out = _angles(before, after, share, 360.0 if form == "degrees" else 2 * np.pi)
    elif form == "quaternion":
        out = slerp(before, after, share)
    else:
        flat = [each.reshape(-1, each.shape[-1]) for each in (before, after, share)]
        kept = "rotation_6d_rows" if form == "6d" else form
        first, second = (convert(each, kept, "quaternion_wxyz") for each in flat[:2])
        out = convert(slerp(first, second, flat[2]), "quaternion_wxyz", kept).reshape(before.shape)
    return np.where(share == 0, before, out)


def slerp(before: Floats, after: Floats, share: Floats) -> Floats:
    """Returns unit quaternions on the shorter arc between others (Shoemake 1985).

    Args:
        before: (..., 4).
        after: (..., 4); q and -q are the same rotation.
        share: (..., 1) of the way.
    """
    before, after = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (before, after))
    cosine = (before * after).sum(axis=-1, keepdims=True)
    after, cosine = np.where(cosine < 0, -after, after), np.abs(cosine)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    sine = np.sin(angle)
    straight = angle < _STRAIGHT
    first = np.where(straight, 1 - share, np.sin((1 - share) * angle) / np.where(straight, 1.0, sine))
    second = np.where(straight, share, np.sin(share * angle) / np.where(straight, 1.0, sine))
    out = first * before + second * after
    return np.asarray(out / np.linalg.norm(out, axis=-1, keepdims=True))


def _angles(before: Floats, after: Floats, share: Floats, turn: float) -> Floats:
    """Returns angles on the shorter way round.

    Where that way leads over the end of the recorded range, the result is as near to `before` or `after`, whichever is
    nearer in time, as a turn more or less allows: so it stays in the range that was recorded, but for the step itself.
    """
    way = (after - before + turn / 2) % turn - turn / 2
    return np.asarray(np.where(share < 0.5, before + share * way, after - (1 - share) * way))
